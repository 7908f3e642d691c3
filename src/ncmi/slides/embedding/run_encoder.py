"""The backbone of an image classifier that ncmi trained, as an encoder."""

from __future__ import annotations

from torch import Tensor, nn

from ncmi.slides.embedding.encoder import EncoderError, EncoderOptions
from ncmi.slides.embedding.network import NetworkEncoder
from ncmi.slides.embedding.preparation import Preparation
from ncmi.training.model import Model, load_model


class _Features(nn.Module):
    """Standardiser and backbone of a trained model, for colours in [0, 1]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.standardise, self.backbone = model.standardise, model.backbone

    def forward(self, images: Tensor) -> Tensor:
        # the images that the standardiser was fitted on were of 0…255
        features: Tensor = self.backbone(self.standardise(images * 255))
        return features


def make_run_encoder(options: EncoderOptions) -> NetworkEncoder:
    """The features of a finished run of ``ncmi train`` on colour images; patches are scaled to the size of these.

    Args:
        options: with ``weights``, the run's folder. Colours are standardised as in the training.

    Raises:
        ValueError: if the folder holds no finished run, or one on other data than colour images.
    """
    options.refuse("the encoder 'run', which standardises as in its training,", "mean", "std", "extra")
    if options.weights is None:
        raise EncoderError("the encoder 'run' needs the folder of a run: give weights=")
    model = load_model(options.weights)
    shape = model.signature.sample_shape
    if model.signature.kind != "image" or len(shape) != 3 or shape[0] != 3:
        raise EncoderError(
            f"{options.weights}: trained on samples of shape {list(shape)}: take a run on colour images, [3, H, W]"
        )
    preparation = Preparation(options.image_size or shape[1], (0.0,) * 3, (1.0,) * 3)
    # rows of 32-bit features: a run in float64 gains nothing here
    return NetworkEncoder(
        f"run:{options.weights.resolve().name}", _Features(model).float(), preparation, options.device
    )
