"""The code of docs/recipes.md and docs/python.md runs as it is shown."""

from __future__ import annotations

import importlib.util
import re
import shlex
import warnings
from pathlib import Path

import pytest

from ncmi.cli import main

RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
PIECES = re.findall(r"^## (.+?)$(.*?)^```python\n(.*?)^```$", RECIPES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
LONGEST = 25


def test_recipes_are_short_and_named() -> None:
    assert [name for name, _, _ in PIECES] == [
        "Plain PyTorch",
        "Segmentation",
        "Next token",
        "Lightning",
        "Hugging Face",
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


PYTHON = RECIPES.with_name("python.md")


def test_python_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```$", PYTHON.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == PYTHON.read_text("utf-8").count("```") // 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, PYTHON.name, "exec"), names)
            continue
        for line in code.splitlines():
            program, *words = shlex.split(line)
            if program == "ncmi":
                assert main(words) == 0, capsys.readouterr().err
            else:
                assert program == "pip"
    assert {"wines.onnx", "wines.pt2"} <= {path.name for path in tmp_path.iterdir()}
    assert str(names["information"]) in capsys.readouterr().out
