"""Encoders by name."""

from __future__ import annotations

from pathlib import Path

from ncmi.slides.embedding.encoder import Encoder, EncoderError, EncoderOptions

_KINDS = (
    "descriptor, resnet18|resnet34|resnet50|resnet101 (with weights), run:FOLDER (a run of ncmi), timm:MODEL, onnx:FILE"
)


def make_encoder(
    spec: str,
    weights: str | Path | None = None,
    *,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    device: str = "cpu",
) -> Encoder:
    """The encoder that a text names.

    ====================================  ============================================================================
    spec                                  what it is
    ====================================  ============================================================================
    ``descriptor``                        colour and texture without weights; :mod:`ncmi.slides.embedding.descriptor`
    ``resnet18``, …, ``resnet101``        weights of a local file; :mod:`ncmi.slides.embedding.resnet`
    ``resnet50:layer3``                   the mean over its third stage
    ``run:FOLDER``                        the backbone of an image classifier that ``ncmi train`` made
    ``timm:MODEL``                        weights of a local file, or timm's; :mod:`ncmi.slides.embedding.timm_encoder`
    ``timm:MODEL,init_values=1e-5``       the same, with options of ``timm.create_model``
    ``onnx:FILE``                         :mod:`ncmi.slides.embedding.onnx_encoder`
    ``onnx:FILE,output=NAME``             one of several outputs; ``tokens=mean`` for the mean of tokens
    ====================================  ============================================================================

    Args:
        spec: as above.
        weights: file of weights; for ``run`` and ``onnx`` the same as the path behind the colon.
        image_size: side in pixels to which patches are scaled; by default the encoder's own.
        mean, std: of red, green and blue in [0, 1] by which patches are normalised; by default the encoder's own, or
            ImageNet's.
        device: "cpu" or "cuda".

    Raises:
        ValueError: for an unknown spec, missing or damaged weights, or options that the encoder does not have.

    Example:
        >>> encoder = make_encoder("descriptor")
        >>> encoder.name, encoder.feature_dim
        ('descriptor', 105)
    """
    kind, _, rest = spec.partition(":")
    argument, extra = _split(spec, rest)
    given = None if weights is None else Path(weights)
    if kind in ("onnx", "run"):
        if bool(argument) == (given is not None):
            raise EncoderError(f"{spec}: which file? Give either {kind}:PATH or weights=PATH")
        given = Path(argument) if given is None else given
    options = EncoderOptions(given, image_size, mean, std, device, extra)
    if kind == "descriptor" and not argument:
        from ncmi.slides.embedding.descriptor import Descriptor

        return Descriptor(options)
    if kind == "onnx" and given is not None:
        from ncmi.slides.embedding.onnx_encoder import OnnxEncoder

        return OnnxEncoder(given, EncoderOptions(None, image_size, mean, std, device, extra))
    if kind == "run":
        from ncmi.slides.embedding.run_encoder import make_run_encoder

        return make_run_encoder(options)
    if kind == "timm":
        from ncmi.slides.embedding.timm_encoder import make_timm_encoder

        return make_timm_encoder(argument, options)
    from ncmi.slides.embedding.resnet import RESNETS, make_resnet

    if kind in RESNETS:
        return make_resnet(kind, argument, options)
    raise EncoderError(f"unknown encoder {spec!r}: use {_KINDS}")


def _split(spec: str, rest: str) -> tuple[str, dict[str, str]]:
    """``NAME,key=value,…`` in name and options; a comma in front of no ``key=value`` belongs to the name."""
    extra: dict[str, str] = {}
    while True:
        front, comma, last = rest.rpartition(",")
        key, equals, value = last.partition("=")
        if not comma or not equals or not key.isidentifier():
            return rest, extra
        if key in extra:
            raise EncoderError(f"{spec}: {key} is given twice: leave one out")
        extra[key] = value
        rest = front
