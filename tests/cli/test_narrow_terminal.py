"""What training and evaluation print on narrow terminals: every figure whole, whatever classes are called."""

from __future__ import annotations

import io

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from ncmi.cli import output
from ncmi.readouts.scores import judge
from ncmi.training.schema import Calibration, Evaluation, Fit, InformationRecord, Readout

NAMES = ["a class whose name is far too long for a table on a terminal of any width", "מחלקה", "很长的类别名称" * 5]
NAMES += [f"class {number}" for number in range(40)]


def evaluation() -> Evaluation:
    """Decisions on 43 classes, with all that can be told of them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, len(NAMES), (800,), generator=generator)
    log_p = (3 * torch.eye(len(NAMES))[labels] + torch.randn(800, len(NAMES), generator=generator)).log_softmax(1)
    test = judge(log_p, labels, NAMES, groups=[str(row // 4) for row in range(800)], resamples=20)
    calibration = Calibration(temperature=1.2345, nll=0.98765, calibration_error=0.0123)
    fit = Fit(samples=1538, available=650_000, iterations=2000, converged=False)
    readout = Readout(test=test, validation=test, calibration=calibration, fit=fit)
    return Evaluation(
        kind="table",
        data="people",
        objective="ncmi",
        class_names=NAMES,
        primary_readouts=["head"],
        readouts=dict.fromkeys(("head", "cc", "lp", "knn"), readout),
        information=InformationRecord(
            cmi=0.1, separation=0.2, ncmi=0.5, cross_entropy_separation=0.3, cross_entropy_ncmi=0.33
        ),
    )


@pytest.mark.parametrize("width", [100, 80, 60])
def test_figures_of_an_evaluation_are_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=text, width=width, color_system=None))
    judged = evaluation()
    output.print_evaluation(judged)
    scores = judged.readouts["head"].test
    words = text.getvalue()
    assert scores.accuracy.value is not None
    assert scores.macro_f1.value is not None
    for figure in (f"{100 * scores.accuracy.value:.2f}", f"{scores.macro_f1.value:.4f}", f"{scores.nll:.4f}", "0.9877"):
        # once a read-out, and accuracy on the validation part too
        assert words.count(f" {figure} ") >= 4
    tables = [line for line in words.splitlines() if cell_len(line) <= width]
    for scored in sorted(scores.classes, key=lambda each: each.f1 or 0)[:20]:
        assert scored.recall.value is not None
        assert any(f"{scored.precision:.3f}" in line and f"{scored.recall.value:.3f}" in line for line in tables)
    # a name alone may lose its middle
    assert all("…" not in line[len(line) // 2 :] for line in tables)
    assert "1,538" in words
    assert "not converged after 2,000" in words


@pytest.mark.parametrize(("width", "most"), [(100, 9), (80, 8), (60, 6), (40, 4)])
@pytest.mark.parametrize("bags", [False, True])
def test_epochs_fit_into_a_line(width: int, most: int, bags: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(
        output, "console", lambda: Console(file=text, width=width, color_system=None, force_terminal=True)
    )
    names = ("train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1", "validation_macro_auc")
    row = dict.fromkeys((*names, "validation_cmi", "validation_separation", "validation_ncmi"), 0.12345)
    row |= {"epoch": 7, "seconds": 12.5, "train_penalty": 0.5 if bags else None}
    log = output.EpochLog()
    log.show(row)
    log.show(row)
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert max(map(cell_len, lines)) <= width
    assert "loss" in lines[0]
    assert len(lines[1].split()) <= most + 2
    assert "12.50" in lines[1]
    assert (" NCMI" in lines[0]) == (width >= 80 or (width >= 60 and not bags))
