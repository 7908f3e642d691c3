"""Files of weights: safetensors, and PyTorch's own without the objects that may be in them."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# of a run's own file; of data-parallel and compiled networks; of networks inside a larger model
_PREFIXES = ("/model/backbone.", "module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")
_SAVE = "save_file(model.state_dict(), 'weights.safetensors') of safetensors.torch"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name, on the CPU: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Weights inside ``{"state_dict": …}`` or the like are found.

    Raises:
        ValueError: if the file is missing, damaged, or holds objects: they are never made, so nothing of it is run.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file: give a .safetensors or .pth file with weights")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no weights by name: write them by {_SAVE}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name!r} is a {type(value).__name__}, no tensor: write the file by {_SAVE}")
    return dict(content)


def strip_prefixes(found: dict[str, Tensor], own: Container[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the backbone in a larger model, with prefixes as ``module.`` or ``backbone.`` cut off their names.

    Args:
        found: tensors by name.
        own: names of the network; nothing is cut off where one of them is found.

    Returns:
        Those tensors, and the names of the others.
    """
    others: list[str] = []
    cut = ""
    while not any(name in own for name in found):
        prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            break
        others += [cut + name for name in found if not name.startswith(prefix)]
        found = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        cut += prefix
    return found, others


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}): restore the file or fetch it again") from None


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats, before the error that says more
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # it is read by an interpreter of its own, which fails on damage in as many ways as there are bytes
        found = re.search(r"GLOBAL ([\w.]+)|TorchScript", str(error))
        if isinstance(error, pickle.UnpicklingError | RuntimeError) and found:
            what = found[1] or "a TorchScript program"
            raise ValueError(
                f"{path}: holds objects ({what}), not weights alone, and was not read, since they could run anything: "
                f"where you trust it, write its weights by {_SAVE}"
            ) from None
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{path}: damaged, or no file of weights ({reason}): fetch it again, or write it by {_SAVE}"
        ) from None
