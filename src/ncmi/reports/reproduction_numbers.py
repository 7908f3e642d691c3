"""All numbers of a reproduced table or figure: for spreadsheets and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ncmi.files import finite
from ncmi.reports.files import FORMAT
from ncmi.reports.published import SOURCE
from ncmi.reports.records import EntryRecord, RunRecord, UnfinishedRun
from ncmi.reports.reproduction import GroupRecord, ReproductionRecord
from ncmi.reports.reproduction_correlation import correlations
from ncmi.reports.settings import environment_settings
from ncmi.reports.statistics import Row, results_of
from ncmi.reports.table import row_numbers


def reproduction_table(record: ReproductionRecord) -> pd.DataFrame:
    """One row per group, method and read-out.

    Columns: ``group``, then those of :func:`ncmi.reports.comparison_table`, then ``cross_entropy_separation`` (nats)
    and ``cross_entropy_ncmi`` (means over seeds, Γ by cross-entropy), ``published`` (percent, the paper's figure) and
    ``runs`` (folders relative to the experiment's, parted by spaces).
    """
    return pd.DataFrame([_numbers(record, group, row) for group in record.groups for row in group.rows])


def to_csv(record: ReproductionRecord) -> str:
    """:func:`reproduction_table` as CSV."""
    return reproduction_table(record).to_csv(index=False, lineterminator="\n")


def to_json(record: ReproductionRecord) -> str:
    """All numbers as JSON, with every run's accuracies; NaN is ``null``.

    Accuracies are in percent, CMI and Γ in nats, times in seconds, memory in MB.
    """
    content = {
        "format": FORMAT,
        "experiment": record.experiment,
        "title": record.title,
        "scale": record.scale,
        "seeds": list(record.seeds),
        "machine": environment_settings(record.machines),
        "published_source": SOURCE,
        "groups": [_group(record, group) for group in record.groups],
    }
    if record.experiment == "figure2":
        content["correlations"] = [
            {
                "separation": one.separation,
                "networks": len(one.points),
                "as_plotted": one.plotted.numbers(),
                "raw": one.raw.numbers(),
                "logarithmic": one.logarithmic,
            }
            for one in correlations(record)
        ]
    return json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def run_path(run: RunRecord | UnfinishedRun, record: ReproductionRecord) -> str:
    """A run's folder relative to the experiment's."""
    return Path(os.path.relpath(run.folder, record.folder)).as_posix()


def _numbers(record: ReproductionRecord, group: GroupRecord, row: Row) -> dict[str, object]:
    return {
        "group": group.name,
        **row_numbers(row),
        "cross_entropy_separation": row.cross_entropy_separation,
        "cross_entropy_ncmi": row.cross_entropy_ncmi,
        "published": record.published(group, row) or float("nan"),
        "runs": " ".join(run_path(run, record) for run in group.entry(row).runs),
    }


def _group(record: ReproductionRecord, group: GroupRecord) -> dict[str, Any]:
    return {
        "name": group.name,
        "title": group.title,
        "data": group.record.data,
        "baseline": group.record.baseline or None,
        "rows": [_row(record, group, row) for row in group.rows],
        "runs": [_run(record, entry, run) for entry in group.record.entries for run in entry.runs],
        "unfinished": [{"folder": run_path(run, record), "state": run.state} for run in group.record.unfinished],
    }


def _row(record: ReproductionRecord, group: GroupRecord, row: Row) -> dict[str, Any]:
    numbers = _numbers(record, group, row)
    difference = row.difference
    return {
        **{name: value for name, value in numbers.items() if name not in ("group", "seeds", "runs")},
        "accuracies": {str(seed): value for seed, value in zip(row.seeds, row.accuracies, strict=True)},
        "differences": {str(seed): value for seed, value in zip(difference.seeds, difference.values, strict=True)}
        if difference
        else {},
    }


def _run(record: ReproductionRecord, entry: EntryRecord, run: RunRecord) -> dict[str, Any]:
    results = results_of(run)
    return {
        "folder": run_path(run, record),
        "label": entry.label,
        "seed": run.seed,
        "test_accuracy": {name: 100 * readout.test_accuracy for name, readout in results.readouts.items()},
        "cmi": results.cmi,
        "separation": results.separation,
        "ncmi": results.ncmi,
        "cross_entropy_separation": results.cross_entropy_separation,
        "cross_entropy_ncmi": results.cross_entropy_ncmi,
        "epoch_seconds": results.epoch_seconds,
        "total_seconds": results.total_seconds,
        "peak_memory_mb": results.peak_memory_mb,
    }
