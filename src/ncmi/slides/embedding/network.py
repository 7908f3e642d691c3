"""Any torch network as an encoder."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ncmi.slides.embedding.encoder import Encoder, EncoderError
from ncmi.slides.embedding.preparation import Preparation

_PROBE = 64  # pixels of the patch that asks a network for its width, where it takes any size


class NetworkEncoder(Encoder):
    """A network ``[B, 3, S, S] → [B, D]`` in evaluation mode; on a GPU in half precision.

    Args:
        name: of the encoder.
        network: without its classifier.
        preparation: of the patches.
        device: to which the network is moved.

    Raises:
        EncoderError: if there is no such device, or the network returns something else.
    """

    def __init__(self, name: str, network: nn.Module, preparation: Preparation, device: str = "cpu") -> None:
        self.name, self.image_size = name, preparation.size
        self.version = f"sha256:{weights_hash(network)}, {preparation}"
        self._prepare = preparation
        self._device = _device(device)
        self._network = network.eval().to(self._device)
        side = preparation.size or _PROBE
        self.feature_dim = int(self.encode(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def encode(self, patches: Tensor) -> Tensor:
        images = self._prepare(patches.to(self._device))
        context: AbstractContextManager[object] = nullcontext()
        if self._device.type == "cuda":
            context = torch.autocast("cuda", dtype=torch.float16)
        try:
            with context:
                features = self._network(images)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise EncoderError(
                f"{self.name} failed on images of shape {list(images.shape)} ({reason}): "
                "give the image_size that it was trained with; where memory ran out, a smaller batch_size"
            ) from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            what = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise EncoderError(f"{self.name} returned {what}, not [{len(images)}, D]: choose a network of features")
        return features.float().cpu()


def weights_hash(network: nn.Module) -> str:
    """The first 16 digits of the SHA-256 of a network's weights and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(
            f"device={name!r} cannot be used ({reason}): use 'cpu', or a torch with that device"
        ) from None
    return device
