"""Files of weights: nothing in them is run, and damaged ones are told."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ncmi.networks import export_weights, load_weights, make_network
from ncmi.recipes import Network


def make(width: int = 4) -> nn.Module:
    return make_network(Network("resnet_small", width=width, depth=1, feature_dim=4 * width), (3, 8, 8))


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "protocol 2", "beside weights", "after the name"])
def test_a_hostile_file_runs_nothing(how: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    evil = Hostile(f"touch {trace}")
    if how in ("torch", "legacy"):
        torch.save(evil, path, _use_new_zipfile_serialization=how == "torch")
    elif how == "beside weights":
        torch.save({**make().state_dict(), "z": evil}, path)
    elif how == "after the name":
        path = tmp_path / "w.safetensors"
        path.write_bytes(pickle.dumps(evil))
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2 if how == "protocol 2" else None))
    with pytest.raises(ValueError, match=r"holds objects \(\w+\.system\), not weights alone, and was not read|damaged"):
        load_weights(make(), path)
    assert not trace.exists()
    if how not in ("after the name", "pickle"):  # the same file does run where it is trusted
        with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=False)
        assert trace.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "w.pth")
    message = r"holds objects \(torch\.nn\.modules\.linear\.Linear\), .*: where you trust it, write .* by save_file\("
    with pytest.raises(ValueError, match=message):
        load_weights(make(), tmp_path / "w.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"holds objects \(a TorchScript program\)"):
        load_weights(make(), tmp_path / "script.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(kind: str, tmp_path: Path) -> None:
    network = make(width=1)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(export_weights(network), path)
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    before = copy_of(network)
    for length in (0, 1, 5, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"w\.\w+: damaged.*: (restore the file|fetch it again)"):
            load_weights(network, path)
    assert_same(network, before)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(ValueError, match=r"no such file: give a \.safetensors or \.pth file with weights"):
            load_weights(make(), path)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(
        ValueError, match=r"damaged, or no file of weights .*: fetch it again, or write it by save_file"
    ):
        load_weights(make(), str(tmp_path / "text.pth"))
