"""``ncmi reproduce``, ``ncmi recipes`` and ``--recipe`` as a user runs them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from cli_helpers import ncmi, read

from ncmi.objectives.options import ObjectiveOptions
from ncmi.recipes import Augmentation, ImageData, Network, Recipe, Training
from ncmi.training import reproduction


class Links(HTMLParser):
    """The relative links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            unquote(value) for name, value in attrs if name == "href" and value and not value.startswith(("#", "http"))
        ]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale "small" on digits, in a second a run."""

    def recipe(objective: ObjectiveOptions) -> Recipe:
        training = Training(epochs=1, batch_size=64, accelerator="cpu", augmentation=Augmentation.cifar())
        return Recipe(ImageData("digits", train_per_class=20), Network("resnet_small", width=8), objective, training)

    monkeypatch.setattr(reproduction, "_RECIPES", {"small": recipe})


@pytest.mark.usefixtures("tiny")
def test_a_table_with_its_links_and_its_figure(tmp_path: Path) -> None:
    words = ("reproduce", "table1", "--seeds", "2", "--only", "focal", "ncmi-power-learned", "--out", "r")
    out = ncmi(*words, cwd=tmp_path).stdout
    for name in ("Cross-entropy", "Focal", "NCMI-CC (p = −4, learned)", "NCMI-LP (p = −4, learned)"):
        assert name in out
    folder = tmp_path / "r/table1"
    for name in ("table.md", "table.csv", "results.json", "figure.svg", "figure.png"):
        assert (folder / name).stat().st_size > 100
    links = Links()
    links.feed((folder / "report.html").read_text())
    runs = {path.resolve() for path in (tmp_path / "r/runs").iterdir()}
    assert len(runs) == 6
    linked = {(folder / link).resolve() for link in links.found}
    # to a run's folder or to a file in it
    assert all(any(run == one or run in one.parents for one in linked) for run in runs)
    assert all(path.exists() for path in linked)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("r/runs/*/results.json")}
    ncmi(*words, cwd=tmp_path)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("r/runs/*/results.json")}
    page = folder / "report.html"
    page.unlink()
    ncmi("report", "r/table1", cwd=tmp_path)
    assert page.is_file()


@pytest.mark.usefixtures("tiny")
def test_entries_and_experiments_that_do_not_exist(tmp_path: Path) -> None:
    errors = ncmi("reproduce", "table1", "--only", "nothing", cwd=tmp_path, check=2).stderr
    assert "'nothing': table1 has cross_entropy" in errors
    ncmi("reproduce", "table9", cwd=tmp_path, check=2)
    assert not list(tmp_path.iterdir())


def test_recipes_are_told_and_set_defaults(tmp_path: Path) -> None:
    out = ncmi("recipes", cwd=tmp_path).stdout
    assert "cifar100.small" in out
    assert "75.44 %" in out
    errors = ncmi("train", "--recipe", "cifar100.none", cwd=tmp_path, check=2).stderr
    assert "'cifar100.none'; known: cifar100.paper" in errors


def test_no_data_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCMI_DATA", raising=False)
    errors = ncmi("train", "--recipe", "cifar100.small", cwd=tmp_path, check=2).stderr
    assert "www.cs.toronto.edu/~kriz/cifar.html" in errors
    assert "NCMI_DATA" in errors
    assert not list(tmp_path.iterdir())


def check_the_small_recipe(tmp_path: Path, cifar100: Path, counts: list[int]) -> None:
    options = ("--training.epochs", "1", "--data.train-per-class", "4", "--training.accelerator", "cpu")
    words = ("train", "--recipe", "cifar100.small", "--objective", "focal", "--data.data-dir", cifar100)
    out = ncmi(*words, *options, "--out", "run", cwd=tmp_path).stdout
    assert "Focal, ResNet-small, on cifar100" in out
    recipe = read(tmp_path / "run/recipe.json")
    assert recipe["network"]["name"] == "resnet_small"
    assert recipe["training"]["precision"] == "bf16-mixed"
    results = read(tmp_path / "run/results.json")
    assert [results[f"num_{part}"] for part in ("train", "validation", "test")] == counts


def test_the_small_recipe(tmp_path: Path, tiny_cifar100: Path) -> None:
    check_the_small_recipe(tmp_path, tiny_cifar100, [400, 100, 100])


@pytest.mark.long
def test_the_small_recipe_on_the_real_data(tmp_path: Path, cifar100_dir: Path) -> None:
    check_the_small_recipe(tmp_path, cifar100_dir, [400, 5000, 10000])
