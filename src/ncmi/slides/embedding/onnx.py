"""Any ONNX file of an image encoder."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.errors import reason
from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions, Preparation

_USUAL_SIZE = 224
_PROBE = 2  # images: a batch that a file holds for a fixed one of 1 shows itself
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxEncoder(Encoder):
    """An ONNX file ``[B, 3, S, S] → [B, D]``, ``[B, D, 1, 1]``, or tokens ``[B, T, D]``.

    Args:
        path: of the file; weights that it keeps in files of their own lie beside it.
        options: image size (224 by default where the file leaves it open), normalization (ImageNet's by default),
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
        self._path, self._session = path, _open(path, options.device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            several = ", ".join(value.name for value in inputs)
            raise EncoderError(f"{path}: takes {len(inputs)} inputs ({several}): export the model with images alone")
        names, output = [value.name for value in self._session.get_outputs()], options.extra.get("output")
        if output is None and len(names) > 1:
            raise EncoderError(f"{path}: returns {', '.join(names)}: choose one, such as output={names[0]}")
        if output is not None and output not in names:
            raise EncoderError(f"{path}: no output {output!r}: it returns {', '.join(names)}")
        if inputs[0].type not in _TYPES:
            raise EncoderError(f"{path}: takes {inputs[0].type}: export it for images of floats, tensor(float)")
        self._input, self._output, self._type = inputs[0].name, output or names[0], _TYPES[inputs[0].type]
        self._batch, size = _sizes(path, list(inputs[0].shape))
        if options.image_size is not None and size not in (None, options.image_size):
            raise EncoderError(f"{path}: takes images of {size} pixels: leave image_size out")
        self._prepare = Preparation.of(options, size or _USUAL_SIZE)
        self.image_size = side = self._prepare.size
        more = "".join(f", {name} {value}" for name, value in sorted(options.extra.items()))
        self.name = f"onnx:{path.name}"
        self.version = f"sha256:{_hash(path)}, {self._prepare}{more}"
        probe = torch.zeros(self._batch or _PROBE, side, side, 3, dtype=torch.uint8)  # type: ignore[arg-type]
        self.feature_dim = int(self.encode(probe).shape[1])

    def encode(self, patches: Tensor) -> Tensor:
        images = self._prepare(patches).numpy()
        step = self._batch or len(images)
        rows = [self._features(images[start : start + step]) for start in range(0, len(images), step)]
        return torch.from_numpy(np.concatenate(rows))

    def _features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the model makes of images; a batch of another size than its own is filled up."""
        number = len(images)
        if self._batch is not None and number < self._batch:
            images = np.concatenate([images, np.repeat(images[-1:], self._batch - number, axis=0)])
        try:
            output = np.asarray(self._session.run([self._output], {self._input: images.astype(self._type)})[0])
        except Exception as error:  # onnxruntime has no common class of its own
            raise EncoderError(
                f"{self._path}: fails on images of shape {list(images.shape)} ({reason(error)}): "
                "give the image_size it was exported for, or export it with that batch size"
            ) from None
        if output.ndim == 0 or len(output) != len(images):
            raise EncoderError(
                f"{self._path}: returns {list(output.shape)} of {len(images)} images: export it with one row an image"
            )
        output = output[:number].astype(np.float32)
        if output.ndim == 4 and output.shape[2:] == (1, 1):
            return output[:, :, 0, 0]
        if output.ndim == 3:
            return output[:, 0] if self._tokens == "class" else output.mean(1)
        if output.ndim != 2:
            raise EncoderError(
                f"{self._path}: returns {list(output.shape)}: export it with features [B, D], [B, D, 1, 1] or "
                "tokens [B, T, D], pooled over the image"
            )
        return output


def _hash(path: Path) -> str:
    """Of the file, and of the weights that exporters put beside it where it would be too large."""
    digest = hashlib.sha256()
    for part in (path, path.with_name(path.name + ".data"), path.with_name(path.name + "_data")):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


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
        what = f"{path}: cannot be read as ONNX ({reason(error)})"
        raise EncoderError(f"{what}: export it again; weights in files beside it must lie there") from None


def _sizes(path: Path, shape: list[Any]) -> tuple[int | None, int | None]:
    """Batch and side where they are fixed. Sizes that are not have a name, none, or −1."""
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(fixed) != 4 or fixed[1] not in (3, None) or fixed[2] != fixed[3]:
        hint = ", not [B, H, W, 3]" if len(fixed) == 4 and fixed[3] == 3 else ""
        raise EncoderError(f"{path}: takes {shape}: export it for square color images, [B, 3, S, S]{hint}")
    return fixed[0], fixed[2]
