"""What a model was trained on, as far as new data must be like it."""

import msgspec

from ncmi.data.tables.preprocessing import Preprocessing
from ncmi.recipes.data import Kind


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the training data looked like: enough to check and to name new data.

    Attributes:
        sample_shape: ``(F,)`` of a table, ``(channels, H, W)`` of images, ``(D_feat,)`` of the instances of bags.
        feature_names: features of a table, where they have names.
        label_column: of the table file that was trained on; None for other data.
        crop_fraction: of images from shards: the part of the shorter side that is seen; None for images that are seen
            whole, as :func:`ncmi.data.images.decode_image` does it.
        preprocessing: how the columns of a table file become these features; None for arrays.
        encoder: of bags, what made the features; empty where their files do not say it.
    """

    kind: Kind
    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None = None
    label_column: str | None = None
    preprocessing: Preprocessing | None = None
    crop_fraction: float | None = None
    encoder: str = ""
