"""What a run decided wrongly: samples with their pictures, and which class is taken for which."""

import base64
from pathlib import Path
from typing import Any

import pandas as pd

from ncmi.readouts.metrics import SHARE
from ncmi.recipes.names import method_label
from ncmi.report.records import ReportError, Run
from ncmi.report.tables import Cell, Table, TableRow, numeric, table_row
from ncmi.training.schema import MISTAKES

MOST = 20
"""So many samples are shown."""


def mistakes(run: Run) -> dict[str, Any] | None:
    """What the template needs of a run's mistakes; None where there are none, or the run did not keep them.

    Raises:
        ReportError: if the table of them is damaged.
    """
    readout = run.finished.primary_readouts[0]
    test = run.finished.readouts[readout].test
    samples = _samples(run)
    if samples is None or not samples.rows:
        return None
    wrong = round(test.samples * (1 - (test.accuracy.value or 0)))
    pairs = [
        table_row(
            pair.label,
            Cell(pair.prediction),
            str(pair.count),
            numeric(f"{100 * pair.share:.1f} %", bold=pair.share >= 0.5),
        )
        for pair in test.confusions
    ]
    headings = ("True class", "taken for", "samples", "share of the true class")
    return {
        "method": method_label(run.label, readout),
        "wrong": wrong,
        "total": test.samples,
        "samples": samples,
        "file": run.folder / MISTAKES,
        "pairs": Table("confused", headings, pairs),
    }


def _samples(run: Run) -> Table | None:
    """The surest mistakes, with pictures where the run kept them."""
    path = run.folder / MISTAKES
    if not path.is_file():
        return None
    again = "restore it or run it again"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, nrows=MOST, encoding="utf-8")
        rows = table[["sample", "label", "prediction"]].to_numpy().tolist()
        shares = table[["probability", "probability_of_label"]].astype(float).to_numpy().tolist()
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{path}: damaged ({error}): {again}") from None
    lines = []
    for number, ((sample, label, prediction), (highest, own)) in enumerate(zip(rows, shares, strict=True)):
        picture = _picture(run.folder / path.stem / f"{number}.png")
        cells = [Cell(sample, picture=picture), Cell(label), Cell(prediction)]
        lines.append(TableRow([*cells, *(numeric(SHARE.fixed(share)) for share in (highest, own))]))
    headings = ("Sample", "true class", "predicted", "probability", "of the true class")
    return Table("misclassified", headings, lines, kind="names")


def _picture(path: Path) -> str:
    """A picture as a page holds it, empty where there is none."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""
