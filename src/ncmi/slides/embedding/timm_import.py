"""The one place where timm is imported."""

from __future__ import annotations

from typing import Any

import torch

from ncmi.slides.embedding.encoder import EncoderError


def import_timm() -> Any:
    """The module ``timm``.

    Raises:
        EncoderError: where it cannot be imported; the message says why, and what to do instead.
    """
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except Exception as error:  # torchvision, which it imports, fails beside another torch in several ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise EncoderError(
            f"timm cannot be imported ({reason}): install timm and the torchvision that fits "
            f"torch {torch.__version__}, or export the model to ONNX where timm works and use onnx:FILE"
        ) from None
    return timm
