"""An ONNX file, checked: one image in, one feature out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.slides.embedding.encoder import EncoderError

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxModel:
    """A session of onnxruntime on ``[B, 3, S, S]``.

    Args:
        path: of the file.
        output: name of the output; needed where there are several.
        device: "cpu", or "cuda" for onnxruntime's CUDA provider.

    Attributes:
        size: S, where the file fixes it.
        batch: B, where the file fixes it.

    Raises:
        EncoderError: if the file is missing or damaged, or takes or returns something else.
    """

    def __init__(self, path: Path, output: str | None, device: str) -> None:
        self.path = path
        self._session = _open(path, device)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            several = ", ".join(value.name for value in inputs)
            raise EncoderError(f"{path}: takes {len(inputs)} inputs ({several}): export the model with images alone")
        names = [value.name for value in outputs]
        if output is None and len(names) > 1:
            raise EncoderError(f"{path}: returns {', '.join(names)}: choose one, such as output={names[0]}")
        if output is not None and output not in names:
            raise EncoderError(f"{path}: no output {output!r}: it returns {', '.join(names)}")
        self._input, self._output = inputs[0].name, output or names[0]
        if inputs[0].type not in _TYPES:
            raise EncoderError(f"{path}: takes {inputs[0].type}: export it for images of floats, tensor(float)")
        self._type = _TYPES[inputs[0].type]
        self.batch, self.size = _sizes(path, list(inputs[0].shape))

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the model returns of ``[B, 3, S, S]``, float32; a batch of another size than its own is filled up.

        Raises:
            EncoderError: if the model fails, or returns other than B rows.
        """
        number = len(images)
        if self.batch is not None and number < self.batch:
            filling = np.repeat(images[-1:], self.batch - number, axis=0)
            images = np.concatenate([images, filling])
        try:
            found = np.asarray(self._session.run([self._output], {self._input: images.astype(self._type)})[0])
        except Exception as error:  # onnxruntime has no common class of its own
            reason = " ".join(str(error).split())
            raise EncoderError(
                f"{self.path}: fails on images of shape {list(images.shape)} ({reason}): "
                "give the image_size it was exported for, or export it with that batch size"
            ) from None
        if found.ndim == 0 or len(found) != len(images):
            raise EncoderError(
                f"{self.path}: returns {list(found.shape)} of {len(images)} images: export it with one row an image"
            )
        return found[:number].astype(np.float32)


def _open(path: Path, device: str) -> Any:
    import onnxruntime

    if not path.is_file():
        raise EncoderError(f"{path}: no such file: give an .onnx file")
    provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise EncoderError(
            f"device={device!r}: this onnxruntime has no {provider}: install onnxruntime-gpu, or use 'cpu'"
        )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors; they are raised as well
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=[provider])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"{path}: cannot be read as ONNX ({reason}): export it again; weights in files beside it must lie there"
        ) from None


def _sizes(path: Path, shape: list[Any]) -> tuple[int | None, int | None]:
    """Batch and side where they are fixed. Sizes that are not have a name, none, or −1."""
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(fixed) != 4 or fixed[1] not in (3, None) or fixed[2] != fixed[3]:
        hint = ", not [B, H, W, 3]" if len(fixed) == 4 and fixed[3] == 3 else ""
        raise EncoderError(f"{path}: takes {shape}: export it for square colour images, [B, 3, S, S]{hint}")
    return fixed[0], fixed[2]
