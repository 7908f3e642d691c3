"""The code of README and docs runs as it is shown, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import warnings
from pathlib import Path

import pytest

from ncmi.cli import main

ROOT = Path(__file__).resolve().parents[1]
RECIPES, PYTHON, QUICKSTART = (ROOT / "docs" / name for name in ("recipes.md", "python.md", "quickstart.md"))
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(page, code, id=f"{page.stem}-{place}")
    for page in PAGES
    if page not in (RECIPES, PYTHON, QUICKSTART)
    for place, code in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )
]
PIECES = re.findall(r"^## (.+?)$(.*?)^```python\n(.*?)^```$", RECIPES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
LONGEST = 25


def test_recipes_are_short_and_named() -> None:
    assert [name for name, _, _ in PIECES] == [
        "Plain PyTorch",
        "Segmentation",
        "Next token",
        "Lightning",
        "Hugging Face",
        "timm",
        "accelerate",
        "skorch",
        "Ignite",
    ]
    assert RECIPES.read_text("utf-8").count("```python") == len(PIECES)
    for name, _, code in PIECES:
        assert len(code.splitlines()) <= LONGEST, name
        assert code.count("NCMIHead(") == 1, name


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, _, code in PIECES], ids=[x[0] for x in PIECES])
def test_recipe(
    name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    libraries = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        if libraries - {"torch", "ncmi", "sklearn"}:
            warnings.simplefilter("default")  # of other people's libraries
        exec(compile(code, f"{RECIPES.name}: {name}", "exec"), {"__name__": "recipe"})
    printed = capsys.readouterr().out
    if name in ("Plain PyTorch", "skorch"):
        assert float(printed) > 0.85
    if name == "accelerate":
        assert printed.split() == ["2"]


@pytest.mark.parametrize(("page", "code"), BLOCKS)
def test_block_runs_by_itself(
    page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})
    # what a block says it prints
    for expected in re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE):
        assert expected in capsys.readouterr().out


def anchor(heading: str) -> str:
    """Of a heading, as pages are shown: lower case, no punctuation, dashes between words."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


def test_the_index_page_is_short_and_has_both_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    for command in ('pip install -c constraints.txt -e ".[app]" && ncmi compare digits', '-e ".[dev]" && pytest'):
        assert command in text


@pytest.mark.parametrize(("page", "written"), [(PYTHON, {"wines.onnx", "wines.pt2"}), (QUICKSTART, {"wine.onnx"})])
def test_page_runs_from_top_to_bottom(
    page: Path, written: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.read_text("utf-8").count("```") // 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, page.name, "exec"), names)
            continue
        for line in code.splitlines():
            program, *words = shlex.split(line)
            if program == "ncmi":
                assert main(words) == 0, capsys.readouterr().err
            else:
                assert program == "pip"
    assert written <= {path.name for path in tmp_path.iterdir()}
    assert re.search(r"CMI .* nats, Γ .* nats, NCMI ", capsys.readouterr().out)
