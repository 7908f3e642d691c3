"""What is imported when: `import ncmi` is light, and the mathematical core needs torch alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import ncmi

CORE = (
    "simplex", "divergence", "functional", "fused", "class_weights", "running", "centroids", "information", "loss",
    "objective", "options", "distributed", "checks", "alternating", "neighbours", "probe", "baselines", "calibration",
)  # fmt: skip


def in_a_new_process(code: str) -> set[str]:
    """Top-level modules in memory after the code has run."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out))


def test_the_package_and_the_options_import_no_torch() -> None:
    loaded = in_a_new_process("import ncmi, ncmi.options; ncmi.__version__, ncmi.objective_names()")
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_the_core_imports_torch_alone() -> None:
    """Of the packages that come with ours: torch and what torch itself loads."""
    torch_alone = in_a_new_process("import torch, torch.nn.functional, torch.distributed, torch.optim")
    modules = ", ".join(f"ncmi.{name}" for name in CORE)
    names = "[getattr(ncmi, name) for name in ncmi.__all__ if name != 'NCMIClassifier']"
    third_parties = in_a_new_process(f"import ncmi, {modules}; {names}") - torch_alone - {"ncmi"}
    assert third_parties <= set(sys.stdlib_module_names)


def test_every_public_name_is_there() -> None:
    assert set(ncmi.__all__) <= set(dir(ncmi))
    for name in ncmi.__all__:
        assert getattr(ncmi, name).__doc__
    with pytest.raises(AttributeError, match="module 'ncmi' has no attribute 'NMCILoss'"):
        _ = ncmi.NMCILoss
