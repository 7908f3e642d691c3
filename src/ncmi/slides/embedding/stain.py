"""Stain normalization of patches in front of an encoder: Macenko's and Reinhard's, by torchstain, an optional extra.

Slides of several laboratories and scanners differ in color more than in what is on them. Each patch is brought to the
colors of a target by itself, as torchstain does; what was done is part of the encoder's version, so that features of
another normalization are told from these wherever those of another encoder are.

Sources: Macenko et al., ISBI 2009; Reinhard et al., IEEE CG&A 2001.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.errors import reason
from ncmi.slides.embedding.encoder import Encoder, EncoderError, check_patches
from ncmi.training.workers import processors

StainMethod = Literal["macenko", "reinhard"]
_MASK = 205  # brightest stained value of a color: torchstain's optical density of 0.15 below its white of 240
_LEAST_STAIN = 0.05


class StainNormalized(Encoder):
    """An encoder that is given patches in the colors of a target.

    Patches that are hardly stained, or in whose colors two stains cannot be told apart, keep theirs, and are counted.

    Args:
        encoder: that the patches go to.
        method: "macenko" or "reinhard".
        target: image of a patch in the colors wanted; Macenko's own reference by default, which Reinhard's has not.
        workers: threads; 0 for one a processor.

    Attributes:
        patches, unchanged: counts of the patches so far, and of those among them that kept their colors.

    Raises:
        EncoderError: without torchstain, for a target that cannot be read or has no stain, or none where one is needed.
    """

    def __init__(
        self, encoder: Encoder, method: StainMethod, target: str | Path | None = None, *, workers: int = 0
    ) -> None:
        self.encoder = encoder
        self._normalizer = _make_normalizer(method)
        self._pool = ThreadPoolExecutor(workers or processors(), thread_name_prefix="stain")
        self.patches = self.unchanged = 0
        self.name, self.feature_dim, self.image_size = encoder.name, encoder.feature_dim, encoder.image_size
        colors = "its reference" if target is None else self._fit(Path(target))
        if target is None and method == "reinhard":
            raise EncoderError(
                "stain normalization by reinhard has no colors of its own: give a patch (--stain-target)"
            )
        self.version = (
            f"{encoder.version}; stain normalization {method} by torchstain {version('torchstain')}, {colors}"
        )

    def encode(self, patches: Tensor) -> Tensor:
        check_patches(patches, square=False)
        normalized = list(self._pool.map(self._normalize, patches.numpy()))
        self.patches += len(normalized)
        self.unchanged += sum(image is None for image in normalized)
        images = [own if image is None else image for own, image in zip(patches.numpy(), normalized, strict=True)]
        return self.encoder.encode(torch.from_numpy(np.stack(images)))

    def _fit(self, path: Path) -> str:
        """Take a target's colors; what tells it from others."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path}: no readable image ({reason(error)}): give a patch (--stain-target)") from None
        if _computed(lambda: self._normalizer.fit(pixels), pixels) is None or self._normalize(pixels) is None:
            raise EncoderError(f"{path}: not enough stain on it to take colors from: give a patch of stained tissue")
        return f"target {hashlib.blake2b(pixels.tobytes(), digest_size=4).hexdigest()}"

    def _normalize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The patch in the target's colors; None where that cannot be."""
        result = _computed(lambda: self._normalizer.normalize(image), image)
        normalized: NDArray[np.uint8] | None = result[0] if isinstance(result, tuple) else result
        return normalized


def _computed(work: Callable[[], Any], image: NDArray[np.uint8]) -> Any:
    """What comes of an image's colors, True for nothing; None where it is hardly stained, or of one color."""
    if (image <= _MASK).all(axis=2).mean() < _LEAST_STAIN or (image == image[0, 0]).all():
        return None
    try:
        with np.errstate(all="raise", under="ignore"):
            result = work()
    except (ArithmeticError, np.linalg.LinAlgError):
        return None
    return True if result is None else result


def _make_normalizer(method: str) -> Any:
    try:
        from torchstain.base import normalizers
    except ImportError as error:
        raise EncoderError(
            f"stain normalization needs torchstain ({error}): pip install ncmi[stain], or leave --stain out"
        ) from None
    makers = {"macenko": normalizers.MacenkoNormalizer, "reinhard": normalizers.ReinhardNormalizer}
    if method not in makers:
        raise EncoderError(f"unknown stain normalization {method!r}: use {' or '.join(makers)}")
    return makers[method](backend="numpy")
