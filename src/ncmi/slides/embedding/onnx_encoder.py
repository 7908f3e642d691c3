"""Any ONNX file of an image encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions
from ncmi.slides.embedding.onnx_model import OnnxModel
from ncmi.slides.embedding.preparation import Preparation

_USUAL_SIZE = 224
_PROBE = 2  # images: a batch that a file holds for a fixed one of 1 shows itself


class OnnxEncoder(Encoder):
    """An ONNX file ``[B, 3, S, S] → [B, D]``, ``[B, D, 1, 1]``, or tokens ``[B, T, D]``.

    Args:
        path: of the file; weights that it keeps in files of their own lie beside it.
        options: image size (224 by default where the file leaves it open), normalisation (ImageNet's by default),
            device; further options are ``output=NAME``, for a file with several, and ``tokens=class`` (the first
            token, by default) or ``tokens=mean``.

    Raises:
        EncoderError: if the file is missing, damaged, or of another form.
    """

    def __init__(self, path: Path, options: EncoderOptions) -> None:
        options.refuse(f"onnx:{path}, which holds its own,", "weights")
        unknown = set(options.extra) - {"output", "tokens"}
        self._tokens = options.extra.get("tokens", "class")
        if unknown or self._tokens not in ("class", "mean"):
            raise EncoderError(
                f"onnx:{path}: unknown options {options.extra}: use output=NAME, tokens=class or tokens=mean"
            )
        self._model = OnnxModel(path, options.extra.get("output"), options.device)
        if options.image_size is not None and self._model.size not in (None, options.image_size):
            raise EncoderError(f"{path}: takes images of {self._model.size} pixels: leave image_size out")
        self._prepare = Preparation.of(options, self._model.size or _USUAL_SIZE)
        self.image_size = self._prepare.size
        more = "".join(f", {name} {value}" for name, value in sorted(options.extra.items()))
        self.name = f"onnx:{path.name}"
        self.version = f"sha256:{_hash(path)}, {self._prepare}{more}"
        side = self._prepare.size
        probe = torch.zeros(self._model.batch or _PROBE, side, side, 3, dtype=torch.uint8)  # type: ignore[arg-type]
        self.feature_dim = int(self.encode(probe).shape[1])

    def encode(self, patches: Tensor) -> Tensor:
        images = self._prepare(patches).numpy()
        step = self._model.batch or len(images)
        rows = [self._feature(self._model(images[start : start + step])) for start in range(0, len(images), step)]
        return torch.from_numpy(np.concatenate(rows))

    def _feature(self, found: np.ndarray) -> np.ndarray:
        if found.ndim == 4 and found.shape[2:] == (1, 1):
            return found[:, :, 0, 0]
        if found.ndim == 3:
            return found[:, 0] if self._tokens == "class" else found.mean(1)
        if found.ndim != 2:
            raise EncoderError(
                f"{self._model.path}: returns {list(found.shape)}: export it with features [B, D], [B, D, 1, 1] or "
                "tokens [B, T, D], pooled over the image"
            )
        return found


def _hash(path: Path) -> str:
    """Of the file, and of the weights that exporters put beside it where it would be too large."""
    digest = hashlib.sha256()
    for part in (path, path.with_name(path.name + ".data"), path.with_name(path.name + "_data")):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
