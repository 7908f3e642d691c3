"""Any model of timm as an encoder."""

from __future__ import annotations

import ast
from typing import Any

from ncmi.backbones import load_weights
from ncmi.slides.embedding.encoder import EncoderError, EncoderOptions
from ncmi.slides.embedding.network import NetworkEncoder
from ncmi.slides.embedding.preparation import Preparation
from ncmi.slides.embedding.timm_import import import_timm


def make_timm_encoder(model: str, options: EncoderOptions) -> NetworkEncoder:
    """The features of a model of timm, without its classifier.

    Args:
        model: timm's name, such as ``"vit_small_patch16_224"``.
        options: with ``weights``, a local file of that model's weights; without, those that timm has itself for this
            name are taken, from its cache or from where it keeps them. Image size and normalisation are the model's
            own by default. Further options go to ``timm.create_model``, such as ``init_values=1e-5``.

    Raises:
        ValueError: where timm cannot be imported or does not know the model, or the file does not fit.
    """
    timm = import_timm()
    if not model:
        raise EncoderError("timm: which model? Give timm:NAME, such as timm:vit_small_patch16_224")
    arguments = {name: _value(text) for name, text in options.extra.items()}
    try:
        network = timm.create_model(model, pretrained=options.weights is None, num_classes=0, **arguments)
        config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    except Exception as error:  # an unknown name, an unknown argument, no network: each its own kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        cure = "check name and options (timm.list_models()), or give weights= a local file of its weights"
        raise EncoderError(f"timm:{model} cannot be made ({reason}): {cure}") from None
    if options.weights is not None:
        load_weights(network, options.weights)
    size = int(config["input_size"][-1])
    preparation = Preparation.of(options, size, tuple(config["mean"]), tuple(config["std"]))
    name = ",".join([f"timm:{model}", *(f"{key}={value}" for key, value in sorted(options.extra.items()))])
    return NetworkEncoder(name, network, preparation, options.device)


def _value(text: str) -> Any:
    """A number, truth value or None that text stands for; otherwise the text."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
