"""Outputs and labels saved from any model: NumPy, safetensors or torch files. Nothing in them is executed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ncmi.data.columns import LABEL_COLUMNS
from ncmi.errors import reason

OUTPUTS = ("logits", "probabilities", "log_probabilities", "features", "outputs", "probs", "log_p", "x")
_HOW = "write numpy.savez(FILE, logits=…, labels=…), or the same two names with safetensors or torch.save"
_HOW_LABELS = "write whole numbers, with numpy.save(FILE, …) or as text with one number a line"


def read_outputs(file: Path, labels_file: Path | None = None) -> tuple[str, Any, Any]:
    """Name of the outputs' array, outputs ``[N, D]`` and integer labels ``[N]``, as NumPy arrays.

    Args:
        file: ``.npz``, ``.safetensors`` or ``.pt`` with outputs and labels; or ``.npy`` with outputs alone.
        labels_file: the labels, where they are in a file of their own: any of these, or text with one number a line.

    Raises:
        FileNotFoundError, ValueError: naming file and cure.
    """
    arrays = _read(file, "outputs")
    name = next((name for name in OUTPUTS if name in arrays), None)
    if name is None and len(arrays) == 1 and labels_file is not None:
        name = next(iter(arrays))
    others = arrays if labels_file is None else _read(labels_file, "labels")
    label = next((name for name in LABEL_COLUMNS if name in others), None)
    if label is None and len(others) == 1 and labels_file is not None:
        label = next(iter(others))
    if label is None and labels_file is not None:
        raise ValueError(f"{labels_file} holds the arrays {', '.join(others) or 'none'}: call the labels labels")
    if name is None or label is None:
        raise ValueError(
            f"{file} holds the arrays {', '.join(arrays) or 'none'}: call the outputs logits, probabilities, "
            "log_probabilities or features, and the labels labels, or give the labels by --labels FILE"
        )
    outputs, labels = arrays[name], others[label]
    told = label if labels_file is None else f"the labels of {labels_file}"
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or len(labels) == 0:
        raise ValueError(f"{file}: {name} {outputs.shape} and {told} {labels.shape}: expected [N, D] and [N], N ≥ 1")
    if not np.issubdtype(outputs.dtype, np.floating) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{file}: {name} is {outputs.dtype} and {told} {labels.dtype}: expected floats and integers")
    return name, outputs, labels


def _read(file: Path, what: Literal["outputs", "labels"]) -> dict[str, Any]:
    """The arrays of a file by their names; ``what`` is the name of one that has none."""
    from safetensors.torch import load_file

    how = _HOW if what == "outputs" else _HOW_LABELS
    if not file.is_file():
        needed = "outputs and labels" if what == "outputs" else "labels"
        raise FileNotFoundError(f"{file} does not exist: give a file with {needed} ({how})")
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".npz": _archive,
        ".npy": lambda path: {what: np.load(path, allow_pickle=False)},
        ".safetensors": lambda path: _arrays(load_file(str(path)), what),
        **dict.fromkeys(
            (".pt", ".pth"), lambda path: _arrays(torch.load(path, map_location="cpu", weights_only=True), what)
        ),
        **dict.fromkeys((".txt", ".csv"), lambda path: {"labels": np.loadtxt(path, dtype=np.int64, ndmin=1)}),
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file}: files of type {file.suffix or 'unknown'} are not read: {how}")
    try:
        return reader(file)
    except pickle.UnpicklingError:
        raise ValueError(f"{file}: holds more than tensors, or is damaged; nothing was executed: {how}") from None
    except Exception as error:  # damaged bytes raise whatever the reader was doing
        said = reason(error)
        if "allow_pickle" in said:  # NumPy's advice is to load what it does not know as pickles
            said = "damaged, or holds Python objects, which are never unpickled"
        raise ValueError(f"{file}: not a readable {file.suffix} ({said}): {how}") from None


def _archive(path: Path) -> dict[str, Any]:
    # opened here: NumPy leaves a damaged file open
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _arrays(content: Any, what: str) -> dict[str, Any]:
    named = content if isinstance(content, dict) else {what: content}
    tensors = {str(name): value.detach() for name, value in named.items() if isinstance(value, torch.Tensor)}
    # NumPy has no bfloat16
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()}
