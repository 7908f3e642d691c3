"""The page: well-formed, self-contained, escaped, small, and written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from ncmi.reports import ReportError, comparison_rows, read_comparison, write_report
from ncmi.reports.table import cells
from ncmi.reports.verdict import verdict

NewRun = Callable[..., Path]
NewComparison = Callable[..., Path]

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "wbr"}


class Page(HTMLParser):
    """Checks that every tag is closed in order, and collects text, attributes and figures."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute twice in <{tag}>"
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


@pytest.fixture(scope="module")
def report(full_comparison: Path) -> Path:
    return write_report(full_comparison)


def test_report_is_well_formed_and_complete(report: Path, full_comparison: Path) -> None:
    page = Page(report)
    assert report == full_comparison / "report.html"
    assert page.tags["figure"] == 5
    assert page.tags["figcaption"] == 5
    record = read_comparison(full_comparison)
    for sentence in verdict(record):
        assert sentence in page.text
    for row in comparison_rows(record):
        for cell in cells(row):
            assert cell in page.text
    for symbol in ("CMI is the concentration", "Γ is the separation", "NCMI = CMI / Γ", "t-SNE", "principal"):
        assert symbol in page.text
    assert "opl-seed4 stopped after epoch 7 of 20 cmic-seed4 not started" in page.text
    assert "ncmi compare digits" in page.text
    assert "batch_size 64" in page.text
    assert "learning_rate 0.1 seed 0–4" in page.text


def test_report_needs_no_network(report: Path) -> None:
    source = report.read_text(encoding="utf-8")
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    page = Page(report)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert page.values("src") == []
    for target in page.values("href"):
        assert re.match(r"#|data:image/png;base64,|runs/", target), target


def test_ids_are_unique_and_references_resolve(report: Path) -> None:
    page = Page(report)
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    for target in page.values("href"):
        if target.startswith("#"):
            assert target[1:] in identifiers


def test_links_lead_to_the_run_folders(report: Path) -> None:
    links = [value for tag, name, value in Page(report).attributes if tag == "a" and name == "href"]
    assert len(links) == 63
    assert all((report.parent / unquote(link) / "results.json").is_file() for link in links)


def test_report_is_small(report: Path) -> None:
    assert report.stat().st_size < 2_000_000


def test_report_is_the_same_every_time(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0, 1])
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_legend_brings_out_each_curve(report: Path) -> None:
    page = Page(report)
    classes = Counter(value for tag, name, value in page.attributes if name == "class")
    for index in range(13):
        assert classes[f"k{index}"] == 1
        assert classes[f"series s{index}"] == 8  # a line and a band in each of four panels
        assert f".s{index} {{ stroke-width" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["<b>&", '"><script>alert(1)</script>', "$x$", "a'b"])
def test_every_name_is_escaped(new_comparison: NewComparison, name: str) -> None:
    folder = new_comparison(seeds=[0], class_names=[name, "other", "third"], num_test=90)
    path = folder / "comparison.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["data"] = name
    content["machine"] = {"cpu": name}
    for entry in content["entries"]:
        entry["label"] += name
    path.write_text(json.dumps(content), encoding="utf-8")
    (recipe_path,) = folder.glob("runs/ncmi-seed0/recipe.json")
    recipe = json.loads(recipe_path.read_text(encoding="utf-8"))
    recipe["objective"]["note"] = recipe["backbone"][name] = name
    recipe_path.write_text(json.dumps(recipe), encoding="utf-8")
    page = Page(write_report(folder))
    assert page.tags["script"] == 0
    assert f"the better classifier on {name}?" in page.text
    assert f"NCMI{name}-CC" in page.text
    assert f"note = {name}" in page.text
    assert f"backbone.{name}" in page.text
    # the title's and the figures' own words, but nothing bold that a class name has made
    assert "<b><" not in (folder / "report.html").read_text(encoding="utf-8").replace("<b>Figure", "")


def test_report_of_a_finished_run(new_run: NewRun) -> None:
    page = Page(write_report(new_run("label_smoothing", 3)))
    assert "label smoothing on digits, seed 3" in page.text
    assert page.tags["figure"] == 4
    assert "Confusion matrices on test data." in page.text
    assert "data.split_seed 3" in page.text


@pytest.mark.parametrize("epochs", [0, 1, 6])
def test_report_of_an_unfinished_run(new_run: NewRun, epochs: int) -> None:
    page = Page(write_report(new_run("ncmi", 0, stopped_after=epochs)))
    assert f"This run is not finished: it stopped after epoch {epochs} of 20." in page.text
    assert page.tags["figure"] == (1 if epochs else 0)
    assert "Confusion" not in page.text


def test_links_are_relative_to_where_the_report_stands(new_run: NewRun, tmp_path: Path) -> None:
    (tmp_path / "else where").mkdir()
    folder = new_run("ncmi", 0)
    path = write_report(folder, tmp_path / "else where")
    assert path == tmp_path / "else where" / "report.html"
    (link,) = (value for tag, name, value in Page(path).attributes if tag == "a" and name == "href")
    assert (path.parent / unquote(link)).resolve() == folder.resolve()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"neither a comparison folder .* nor a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_written_over(new_run: NewRun, tmp_path: Path) -> None:
    folder, mine = new_run(), tmp_path / "thesis.html"
    mine.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ReportError, match=r"thesis.html: exists and is no report of ncmi: give another file"):
        write_report(folder, mine)
    assert mine.read_text(encoding="utf-8") == "<p>mine</p>"


def test_an_earlier_report_is_replaced(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0, stopped_after=2)
    before = write_report(folder).read_text(encoding="utf-8")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 3, "validation_cmi": 0.5}\n')
    assert write_report(folder).read_text(encoding="utf-8") != before


def test_a_missing_target_folder_is_an_error(new_run: NewRun, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"cannot be written .*: give a path in an existing, writable folder"):
        write_report(new_run(), tmp_path / "missing" / "report.html")


def test_nothing_half_written_remains(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run("ncmi", 0, stopped_after=2)
    before = write_report(folder).read_bytes()
    files = sorted(folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=r"No space left on device"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert sorted(folder.iterdir()) == files


def test_damage_leaves_the_earlier_report_alone(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    before = write_report(folder).read_bytes()
    (folder / "runs/ncmi-seed0/test_outputs.npz").write_bytes(b"damaged")
    with pytest.raises(ReportError, match=r"test_outputs\.npz: damaged"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_reports_load_neither_torch_nor_the_trainer_nor_matplotlib() -> None:
    # the modules that `import ncmi` itself loads do not count: only what the reports add
    code = (
        "import sys, ncmi; before = set(sys.modules); import ncmi.reports\n"
        "added = set(sys.modules) - before\n"
        "print([m for m in added if m.split('.')[0] in ('torch', 'matplotlib', 'sklearn')"
        " or m.startswith('ncmi.') and m != 'ncmi.files' and not m.startswith('ncmi.reports')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
