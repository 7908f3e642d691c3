"""Checkpoints: whatever tree goes in comes out; damaged and foreign files are refused, and nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from training_helpers import same_tree

from ncmi.training import checkpoint
from ncmi.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) * 5
    tensor = tensor.to(draw(st.sampled_from(DTYPES)))
    return tensor.T if tensor.dim() == 2 and draw(st.booleans()) else tensor


plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | tensors()
# keys that would collide if paths alone named tensors, and keys that the codec itself uses
keys = st.sampled_from(["a", "b", "a/b", "__tensor__", "__pairs__", "0", ""]) | st.text(max_size=3)
mixed = keys | st.integers(-2, 2) | st.booleans() | st.none()
trees = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(mixed, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(tree=st.dictionaries(keys, trees, max_size=4))
def test_round_trip(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_checkpoint(path, tree)
    assert same_tree(load_checkpoint(path), tree)


def test_tensors_that_share_memory_and_gradients(tmp_path: Path) -> None:
    base = torch.arange(6.0).requires_grad_()
    tree = {"a": base, "b": base[:3], "c": {"d": [base.view(2, 3).T]}}
    save_checkpoint(tmp_path / "x", tree)
    found = load_checkpoint(tmp_path / "x")
    assert same_tree(found, {"a": base.detach(), "b": base[:3].detach(), "c": {"d": [base.view(2, 3).T.detach()]}})
    assert not found["a"].requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": {"y": object()}}, "cannot hold /x/y, a object"),
        ({"x": [1, {2}]}, "cannot hold /x/1, a set"),
        ({"x": {(1, 2): 3}}, "cannot hold the keys of /x"),
    ],
)
def test_what_cannot_be_held_leaves_the_old_file(value: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"kept": 1})
    with pytest.raises(TypeError, match=message):
        save_checkpoint(path, value)
    assert load_checkpoint(path) == {"kept": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"kept": torch.ones(3)})

    def fail(tensors: dict[str, Tensor], name: str, metadata: dict[str, str]) -> None:
        Path(name).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"kept": torch.zeros(3)})
    assert same_tree(load_checkpoint(path), {"kept": torch.ones(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_new_file_comes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "folder" / "x.safetensors", {})
    assert list((tmp_path / "folder").iterdir()) == []


def good_bytes(tmp_path: Path) -> bytes:
    save_checkpoint(tmp_path / "good", {"w": torch.arange(8.0), "n": [1, {"deep": torch.ones(2, 2)}], "s": "text"})
    return (tmp_path / "good").read_bytes()


def test_truncated_anywhere(tmp_path: Path) -> None:
    whole = good_bytes(tmp_path)
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors: damaged .*restore the file"):
            load_checkpoint(path)


@given(data=st.data())
def test_bytes_changed_anywhere(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(good_bytes(folder))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "changed.safetensors"
    path.write_bytes(content)
    # what is still a checkpoint is read, of whatever is not the file is named
    with contextlib.suppress(CheckpointError):
        assert isinstance(load_checkpoint(path), dict)
        return
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_checkpoint(path)


HEADERS = ["", "no JSON", "[1, 2]", "3", "null", '{"w": {"__tensor__": "gone"}}', '{"w": {"__tensor__": [1]}}']
HEADERS += ['{"w": {"__pairs__": 3}}', '{"w": {"__pairs__": [[1]]}}', '{"w": {"__pairs__": [[{}, 1]]}}', "[" * 100_000]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_of_somebody_else(header: str, tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors", metadata={"ncmi": header})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged"):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_somebody_else(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a checkpoint of ncmi: give a run folder"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch-legacy"])
def test_a_pickle_is_refused_and_never_executed(how: str, tmp_path: Path) -> None:
    evil, path = _Evil(tmp_path / "executed"), tmp_path / "x.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged"):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(evil))  # it would have worked
    assert (tmp_path / "executed").exists()


def test_generators_go_on_where_they_were() -> None:
    cpu = torch.device("cpu")
    torch.rand(3)
    state = random_state(cpu)
    expected = torch.rand(5)
    torch.manual_seed(1)
    set_random_state(state, cpu)
    assert torch.equal(torch.rand(5), expected)


def test_the_header_is_json(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_checkpoint(tmp_path / "x", {"n": 1, "w": torch.ones(2)})
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert json.loads(file.metadata()["ncmi"][32:]) == {"n": 1, "w": {"__tensor__": "/w"}}
        assert list(file.keys()) == ["/w"]
