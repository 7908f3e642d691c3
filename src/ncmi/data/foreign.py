"""Inputs of any data set in the form of a network's training data: what it is shown that it was not trained for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from ncmi.data.cifar_find import cifar_at
from ncmi.data.cifar_sets import CIFAR_SETS
from ncmi.data.dataset import Kind
from ncmi.data.embedded import EMBEDDED, load_embedded
from ncmi.data.images import with_channels
from ncmi.data.load import find_data, load_dataset, naming
from ncmi.data.unlabelled import load_unlabelled


def load_foreign(
    name_or_path: str,
    *,
    kind: Kind,
    shape: Sequence[int],
    feature_names: Sequence[str] | None = None,
    label_column: str | None = None,
    data_dir: str | None = None,
) -> Tensor:
    """Inputs ``[N, *shape]`` of a data set by embedded name, by path, or by name in a data folder.

    Labels are neither needed nor looked at. Images become grey or RGB as in training. Image files are scaled to the
    size of training, CIFAR to 32, 16 or 8 pixels, of which only the test part is taken; arrays keep their size.

    Args:
        name_or_path: as for :func:`ncmi.data.load_dataset`; here also a flat folder of images and tables without
            labels.
        kind, shape, feature_names, label_column: of the training data, see :func:`ncmi.data.load_unlabelled`.
        data_dir: folder to search for names; by default the environment variable ``NCMI_DATA``.

    Raises:
        FileNotFoundError: if nothing has this name.
        ValueError: for data of another kind, shape or columns; the message names the cure.
    """
    if name_or_path in EMBEDDED:
        dataset = load_embedded(name_or_path)
        inputs = dataset.inputs
        if dataset.kind == kind == "image":
            inputs = with_channels(inputs, shape[0])
        if dataset.kind != kind or inputs.shape[1:] != tuple(shape):
            scaled = "; image files in a folder are scaled to it" if kind == "image" else ""
            raise ValueError(
                f"{name_or_path} is {dataset.kind} of sample shape {list(inputs.shape[1:])}, but the network was "
                f"trained on {kind} of sample shape {list(shape)}: give data of that form{scaled}"
            )
        return inputs
    if kind == "image" and _is_cifar(name_or_path, data_dir):
        if shape[1] != shape[2]:
            raise ValueError(
                f"{name_or_path} has square images, but the network was trained on sample shape {list(shape)}: "
                "give image files in a folder, which are scaled to it"
            )
        cifar = load_dataset(name_or_path, image_size=shape[1], channels=shape[0], data_dir=data_dir)
        return cifar.inputs if cifar.fixed_test is None else cifar.inputs[cifar.fixed_test]
    path = find_data(name_or_path, data_dir)
    inputs, _ = load_unlabelled(
        str(path), kind=kind, shape=shape, feature_names=feature_names, label_column=label_column
    )
    return inputs


def _is_cifar(name_or_path: str, data_dir: str | None) -> bool:
    if name_or_path in CIFAR_SETS:
        return True
    path = find_data(name_or_path, data_dir or os.environ.get("NCMI_DATA"))
    with naming(path):
        return cifar_at(path) is not None
