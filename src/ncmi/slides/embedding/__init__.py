"""From patches to features: encoders, and the way over all slides."""

from ncmi.slides.embedding.descriptor import DESCRIPTOR_NAMES, describe_patches
from ncmi.slides.embedding.embed import EmbedError, embed_slides
from ncmi.slides.embedding.encoder import Encoder, EncoderError, make_encoder

__all__ = [
    "DESCRIPTOR_NAMES",
    "EmbedError",
    "Encoder",
    "EncoderError",
    "describe_patches",
    "embed_slides",
    "make_encoder",
]
