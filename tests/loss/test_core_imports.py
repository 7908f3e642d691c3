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


def in_a_new_process(code: str) -> set[str]:
    """Top-level modules in memory after the code has run."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out))


def test_the_package_and_the_options_import_no_torch() -> None:
    loaded = in_a_new_process(f"import ncmi, {', '.join(TORCH_FREE)}; ncmi.__version__, ncmi.objective_names()")
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_the_core_imports_torch_alone() -> None:
    """Of the packages that come with ours: torch and what torch itself loads."""
    torch_alone = in_a_new_process("import torch, torch.nn.functional, torch.distributed, torch.optim")
    modules = ", ".join((*CORE, "ncmi.readouts.linear_probe", "ncmi.readouts.neighbors"))
    apart = ("NCMIClassifier", "apply_temperature", "fit_temperature")
    names = f"[getattr(ncmi, name) for name in ncmi.__all__ if name not in {apart}]"
    third_parties = in_a_new_process(f"import ncmi, {modules}; {names}") - torch_alone - {"ncmi"}
    assert third_parties <= set(sys.stdlib_module_names)


def test_the_loss_imports_no_other_folder() -> None:
    """And the equation nothing of the package at all."""
    for file in (Path(ncmi.__file__).parent / "loss").glob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) (ncmi[.\w]*)", file.read_text(), re.MULTILINE)
        assert all(name.startswith("ncmi.loss.") for name in imports), file
        assert file.stem != "equation" or not imports


def test_every_public_name_is_there() -> None:
    assert set(ncmi.__all__) <= set(dir(ncmi))
    for name in ncmi.__all__:
        assert getattr(ncmi, name).__doc__
    with pytest.raises(AttributeError, match="module 'ncmi' has no attribute 'NMCILoss'"):
        _ = ncmi.NMCILoss
