"""What is imported when: `import ncmi` is light, and the mathematical core needs torch alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ncmi

CORE = tuple(
    f"ncmi.{folder.name}.{file.stem}"
    for folder in (Path(ncmi.__file__).parent / name for name in ("loss", "objectives"))
    for file in folder.glob("*.py")
    if file.stem != "__init__"
)
TORCH_FREE = ("ncmi.loss.forms", "ncmi.loss.alternating", "ncmi.objectives.options")


def in_a_new_process(*steps: str) -> list[set[str]]:
    """Top-level modules in memory after each of these steps."""
    told = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    code = "".join(step + told for step in steps)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return [set(json.loads(line)) for line in out.splitlines()]


def test_the_package_and_the_options_import_no_torch() -> None:
    (loaded,) = in_a_new_process(f"import ncmi, {', '.join(TORCH_FREE)}; ncmi.__version__, ncmi.objective_names()")
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_the_core_imports_torch_alone() -> None:
    """Of the packages that come with ours: torch and what torch itself loads."""
    modules = ", ".join((*CORE, "ncmi.readouts.linear_probe", "ncmi.readouts.neighbors"))
    apart = {name for name, home in vars(ncmi)["_HOME"].items() if home in vars(ncmi)["_NEED_APP"]}
    assert {"NCMIClassifier", "apply_temperature", "fit_temperature", "load"} <= apart
    names = f"[getattr(ncmi, name) for name in ncmi.__all__ if name not in {apart}]"
    torch_alone, with_core = in_a_new_process(
        "import torch, torch.nn.functional, torch.distributed.tensor, torch.optim", f"import ncmi, {modules}; {names}"
    )
    assert "ncmi" in with_core - torch_alone
    assert with_core - torch_alone - {"ncmi"} <= set(sys.stdlib_module_names)


def test_the_loss_imports_no_other_folder() -> None:
    """And the equation nothing of the package at all."""
    for file in (Path(ncmi.__file__).parent / "loss").glob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) (ncmi[.\w]*)", file.read_text(), re.MULTILINE)
        assert all(name.startswith("ncmi.loss.") for name in imports), file
        assert file.stem != "equation" or not imports


def test_every_public_name_is_there() -> None:
    assert {name for name in dir(ncmi) if not name.startswith("__")} == set(ncmi.__all__)
    assert "__version__" in dir(ncmi)
    for name in ncmi.__all__:
        assert getattr(ncmi, name).__doc__
    with pytest.raises(AttributeError, match="module 'ncmi' has no attribute 'NMCILoss'"):
        _ = ncmi.NMCILoss


def test_a_misspelled_name_is_an_error_for_mypy_too(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    use = tmp_path / "use.py"
    use.write_text("import ncmi\nncmi.NCMILos(3, 4)\nncmi.NCMILoss\nncmi.__version__.upper()\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=skip", f"--cache-dir={tmp_path}"]
    done = subprocess.run([*command, str(use), str(ncmi.__file__)], capture_output=True, text=True, check=False)
    assert re.findall(r"use.py:(\d+): error: Module has no attribute \"(\w+)\"", done.stdout) == [("2", "NCMILos")]
    assert "Found 1 error" in done.stdout


NEEDS = {
    code: re.compile(rf"ncmi\.{name} needs \w+, which is not installed: pip install ncmi\[app\]")
    for code, name in (
        ("import ncmi; ncmi.NCMIClassifier", "NCMIClassifier"),
        ("from ncmi import fit_temperature", "fit_temperature"),
        ("import ncmi; ncmi.load", "load"),
    )
}


@pytest.fixture(scope="module")
def without_extras() -> list[str]:
    """What a process that has torch alone says: of the star, and of each name that needs more its error."""
    hide = "import sys, importlib.abc\nclass Hide(importlib.abc.MetaPathFinder):\n"
    hide += "    def find_spec(self, name, path=None, target=None):\n"
    hide += "        if name.partition('.')[0] in ('numpy', 'sklearn', 'scipy', 'msgspec'):\n"
    hide += "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    hide += "sys.meta_path.insert(0, Hide())\n"
    star = (
        "from ncmi import *\nprint(type(NCMILoss(num_classes=3, feature_dim=4)).__name__, 'NCMIClassifier' in dir())\n"
    )
    others = f"for code in {list(NEEDS)}:\n    try: exec(code, {{}})\n"
    others += "    except ModuleNotFoundError as error: print(error)\n    else: print('no error')\n"
    command = [sys.executable, "-W", "ignore", "-c", hide + star + others]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_star_gives_what_works_without_the_extras(without_extras: list[str]) -> None:
    assert without_extras[0] == "NCMILoss False"


@pytest.mark.parametrize("code", NEEDS)
def test_without_the_extras_the_error_says_what_to_install(code: str, without_extras: list[str]) -> None:
    said = dict(zip(NEEDS, without_extras[1:], strict=True))[code]
    assert NEEDS[code].fullmatch(said), said


def test_help_shows_public_names_alone() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import pydoc, ncmi; print(pydoc.plain(pydoc.render_doc(ncmi)))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "class NCMILoss" in done.stdout
    assert "import_module" not in done.stdout
    assert "class NCMIClassifier" not in done.stdout
