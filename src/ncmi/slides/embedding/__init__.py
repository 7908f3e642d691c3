"""From patches to features: encoders, and the way over all slides."""

from ncmi.slides.embedding.descriptor import DESCRIPTOR_NAMES, describe_patches
from ncmi.slides.embedding.embed import embed_slides
from ncmi.slides.embedding.encoder import Encoder, EncoderError
from ncmi.slides.embedding.features_file import EmbedError
from ncmi.slides.embedding.make import make_encoder
from ncmi.slides.embedding.result import EmbedResult

__all__ = [
    "DESCRIPTOR_NAMES",
    "EmbedError",
    "EmbedResult",
    "Encoder",
    "EncoderError",
    "describe_patches",
    "embed_slides",
    "make_encoder",
]
