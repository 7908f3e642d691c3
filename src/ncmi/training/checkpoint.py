"""Checkpoints as one safetensors file: tensors in the body, everything else as JSON in its header. No pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ncmi.errors import reason
from ncmi.files import check_regular, write_atomically

_TENSOR, _PAIRS = "__tensor__", "__pairs__"
_DIGITS = 32  # of the checksum


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another kind; the message names file and cure."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of dicts, lists, tensors and plain values, whole or not at all, with a checksum of all of it."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_strip(state, "", tensors))
    # one entry: of several the format keeps no order, and files of equal states would differ
    metadata = {"ncmi": _checksum(tree, tensors) + tree}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, str(temporary), metadata=metadata))
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error}): make room, then resume the run") from None


def load_checkpoint(path: Path, *, cure: str = "restore the file or start the run again") -> dict[str, Any]:
    """The tree that :func:`save_checkpoint` wrote, tensors on the CPU.

    Args:
        path: the file.
        cure: of damage, for the message.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a checkpoint of this package.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint here: the run stopped before its first one; start it again")
    check_regular(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {}).get("ncmi")
            if header is None:
                raise CheckpointError(f"{path}: not a checkpoint of ncmi: give a run folder that ncmi wrote")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum, tree = header[:_DIGITS], header[_DIGITS:]
        if checksum != _checksum(tree, tensors):
            raise ValueError("its contents have changed since they were written")
        state = _restore(json.loads(tree), tensors)
        if not isinstance(state, dict):
            raise ValueError("its header holds no state")
    except CheckpointError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({reason(error)}): {cure}") from None
    return state


def _checksum(tree: str, tensors: dict[str, Tensor]) -> str:
    """Of the tree, and of names, types, shapes and bytes of the tensors; disks and copies do flip bits."""
    digest = hashlib.blake2b(tree.encode(), digest_size=_DIGITS // 2)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _strip(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The same tree with the name of a tensor in place of the tensor."""
    if isinstance(value, Tensor):
        while name in tensors:  # {"a/b": …} beside {"a": {"b": …}}
            name += "'"
        # a copy: safetensors takes no two tensors that share memory
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        if not all(key is None or isinstance(key, bool | int | float | str) for key in value):
            raise TypeError(f"a checkpoint cannot hold the keys of {name}: use text or numbers")
        if all(isinstance(key, str) and key not in (_TENSOR, _PAIRS) for key in value):
            return {key: _strip(child, f"{name}/{key}", tensors) for key, child in value.items()}
        return {_PAIRS: [[key, _strip(child, f"{name}/{key}", tensors)] for key, child in value.items()]}
    if isinstance(value, list | tuple):
        return [_strip(child, f"{name}/{index}", tensors) for index, child in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {name}, a {type(value).__name__}")


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        if _PAIRS in value:
            return {key: _restore(child, tensors) for key, child in value[_PAIRS]}
        return {key: _restore(child, tensors) for key, child in value.items()}
    if isinstance(value, list):
        return [_restore(child, tensors) for child in value]
    return value


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's generators, on the CPU and on the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put torch's generators to a state from :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
