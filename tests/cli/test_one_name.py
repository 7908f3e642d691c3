"""One name for a loss, a network and a read-out, wherever it is met: at the terminal, in CSV, Markdown and page."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from cli_helpers import ncmi

from ncmi.recipes.names import READOUTS, network_label, objective_label
from ncmi.report import to_markdown

sys.path.insert(0, str(Path(__file__).parents[1] / "slides"))
from slide_helpers import write_cohort

OBJECTIVES = ("cross_entropy", "label_smoothing", "generalized_cross_entropy", "ncmi")
NETWORKS = ("abmil", "mean")
QUICK = ("--training.epochs", 1, "--training.accelerator", "cpu", "--seeds", 1, "--workers", 1, "--out", "c")
NARROW = ("--network.width", 16, "--network.attention-dim", 8, "--network.heads", 4)
# the names in all their spellings; of each, the ones on the right are the house's
SPELLINGS = {
    r"cross.?entropy|\bCE\b|\bXE\b": {"Cross-entropy"},
    r"label.?smoothing|\bLS\b": {"Label smoothing"},
    r"generali[sz]ed.?cross.?entropy|\bGCE\b": {"GCE"},
    r"\bncmi\b": {"NCMI"},
    r"\babmil\b": {"ABMIL"},
    r"\bmean.?pool(ing)?\b": {"Mean pooling"},
    r"\bk.?nn\b": {"kNN"},
    r"\bcc\b": {"CC"},
    r"\blp\b": {"LP"},
}
# what else may be written: runs by their folders, this program, Γ by cross-entropy, which is no loss, and an option
ELSEWHERE = r"label_smoothing = [\d.]+|[\w-]+-seed\d+(-fold\d+)?|\bncmi ·|Written by ncmi|ncmi report|ncmi\.load\(|Γ \(cross entropy\)"


class Words(HTMLParser):
    """What a page says: its text, and the words of its charts. Commands and recipes are left out."""

    LEFT_OUT = frozenset(("code", "pre", "style", "dl"))

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.words += [value or "" for name, value in attrs if name in ("aria-label", "title", "data-keys")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            # a chart's specification: its titles and values, but not the names of its fields
            if data.lstrip().startswith("{"):
                self.words += re.findall(r'"(?:text|title|series|row)":"([^"]*)"', data)
        elif not self.LEFT_OUT & set(self._open):
            self.words.append(data)


def other_spellings(text: str) -> set[str]:
    """Names that are not written as the house writes them."""
    text = re.sub(ELSEWHERE, "", text)
    return {
        match[0]
        for pattern, right in SPELLINGS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
        if match[0] not in right
    }


def said(folder: Path, stdout: str) -> dict[str, str]:
    """What a comparison says, by where it says it."""
    page = Words()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    table = (folder / "table.csv").read_text(encoding="utf-8")
    return {
        "terminal": stdout,
        "csv": table.partition("\n")[2],  # the heading names measures
        "markdown": to_markdown(folder, readouts=tuple(READOUTS)),
        "page": "\n".join(page.words),
    }


def check(folder: Path, stdout: str, labels: set[str]) -> None:
    """All labels stand everywhere, and no other spelling of a name stands anywhere."""
    for where, text in said(folder, stdout).items():
        # a CSV file has network and objective in columns of their own
        names = {part for label in labels for part in label.split(", ")} if where == "csv" else labels
        assert {name for name in names if name not in text} == set(), where
        assert other_spellings(text) == set(), where
    # rows and columns of the terminal are those of SHOWN: kNN is in the page and the files
    frame = pd.read_csv(folder / "table.csv")
    assert set(frame["readout"]) == set(READOUTS.values())


@pytest.mark.parametrize("text", ["Label-smoothing", "label_smoothing", "generalized cross entropy", "KNN", "Cc"])
def test_other_spellings_are_seen(text: str) -> None:
    assert text in other_spellings(f"NCMI-CC, {text} and Cross-entropy")
    assert other_spellings("NCMI-CC, GCE and Cross-entropy") == set()


def test_objectives_and_readouts_of_a_table_have_one_name(tmp_path: Path) -> None:
    done = ncmi("compare", "iris", "--objectives", *OBJECTIVES, *QUICK, cwd=tmp_path)
    labels = {objective_label(name) for name in OBJECTIVES}
    check(tmp_path / "c", done.stdout, labels | {f"NCMI-{READOUTS[name]}" for name in ("cc", "lp")})
    frame = pd.read_csv(tmp_path / "c" / "table.csv")
    assert set(frame["objective"]) == labels
    assert set(frame["network"]) == {network_label("mlp")}
    # one run alone
    out = ncmi("train", "iris", "--objective", "label_smoothing", *QUICK[:4], "--out", "run", cwd=tmp_path).stdout
    assert objective_label("label_smoothing") in out
    assert network_label("mlp") in out
    assert other_spellings(out) == set()


def test_networks_of_bags_have_one_name(tmp_path: Path) -> None:
    features = write_cohort(tmp_path / "cohort").parent / "features"
    words = ("compare", features, "--data.labels", features.parent / "labels.csv", "--data.test-fraction", 0.3)
    objectives = ("cross_entropy", "label_smoothing")
    options = ("--networks", *NETWORKS, "--objectives", *objectives, *NARROW, *QUICK)
    done = ncmi(*words, *options, cwd=tmp_path)
    pairs = {(network_label(network), objective_label(name)) for network in NETWORKS for name in objectives}
    check(tmp_path / "c", done.stdout, {f"{network}, {objective}" for network, objective in pairs})
    frame = pd.read_csv(tmp_path / "c" / "table.csv")
    assert set(zip(frame["network"], frame["objective"], strict=True)) == pairs
