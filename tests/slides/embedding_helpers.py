"""Encoders and tiny ONNX files of known content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ncmi.slides.embedding import Encoder

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def some_patches(number: int = 5, side: int = 8, seed: int = 0) -> Tensor:
    """Patches ``[number, side, side, 3]`` of noise, each of its own brightness."""
    random = torch.Generator().manual_seed(seed)
    bright = torch.randint(60, 255, (number, 1, 1, 3), generator=random)
    return (torch.rand(number, side, side, 3, generator=random) * bright).byte()


def normalized(patches: Tensor, mean: object = IMAGENET[0], std: object = IMAGENET[1]) -> np.ndarray:
    """``[B, 3, H, W]`` float64, as a network is given them."""
    colors = (patches.numpy() / 255 - np.asarray(mean)) / np.asarray(std)
    return np.moveaxis(colors, -1, 1)


class Means(Encoder):
    """The mean red, green and blue of a patch in [0, 1], times a factor."""

    def __init__(self, name: str = "means", version: str = "1", factor: float = 1.0) -> None:
        self.name, self.version, self.feature_dim, self.image_size = name, version, 3, None
        self.factor = factor
        self.batches: list[int] = []

    def encode(self, patches: Tensor) -> Tensor:
        self.batches.append(len(patches))
        return patches.float().mean((1, 2)) / 255 * self.factor


def write_onnx(
    path: Path,
    form: str = "[B, D]",
    *,
    batch: int | str = "batch",
    size: int | str = 8,
    shape: list[int | str] | None = None,
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    outputs: int = 1,
) -> Path:
    """A file that returns the three colors' means of an image: pooled, with trailing axes, or of quarters as tokens."""
    wanted = shape or [batch, 3, size, size]
    given = [helper.make_tensor_value_info(f"images{number or ''}", kind, wanted) for number in range(inputs)]
    nodes = [helper.make_node("GlobalAveragePool", ["images"], ["pooled"])]
    if form == "[B, D, 1, 1]":
        nodes.append(helper.make_node("Identity", ["pooled"], ["features"]))
    elif form == "[B, D]":
        nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    elif form == "[B, T, D]":
        nodes = [
            helper.make_node("AveragePool", ["images"], ["quarters"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Reshape", ["quarters", "tokens"], ["by_color"]),
            helper.make_node("Transpose", ["by_color"], ["features"], perm=[0, 2, 1]),
        ]
    elif form == "[B, D, 2, 2]":
        nodes = [helper.make_node("AveragePool", ["images"], ["features"], kernel_shape=[4, 4], strides=[4, 4])]
    elif form == "[1, D]":
        nodes += [
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("ReduceMean", ["flat"], ["features"], axes=[0]),
        ]
    floats = TensorProto.FLOAT if kind == TensorProto.UINT8 else kind
    if kind == TensorProto.UINT8:
        nodes[0].input[0] = "floats"
        nodes.insert(0, helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT))
    returned = [helper.make_tensor_value_info("features", floats, None)]
    if outputs == 2:
        nodes.append(helper.make_node("Neg", ["features"], ["other"]))
        returned.append(helper.make_tensor_value_info("other", floats, None))
    tokens = numpy_helper.from_array(np.array([0, 3, 4]), "tokens")
    graph = helper.make_graph(nodes, "means", given, returned, [tokens] if form == "[B, T, D]" else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
