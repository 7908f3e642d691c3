"""What columns, arrays and parts are usually called, in lower case; and what attributes say of patches."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABEL_COLUMNS = ("label", "labels", "class", "target", "targets", "y")
"""Of a class, in tables and .npz archives."""
TABLE_LABEL_COLUMNS = (
    *("classes", "classification", "class_label", "class_name", "class_type", "outcome", "diagnosis"),
    *("survived", "species", "churn", "churned", "exited", "attrition", "default", "loan_status"),
    *("credit_risk", "response_variable", "deposit", "subscribed", "purchase", "purchased", "approved"),
    *("approval", "fraud", "is_fraud", "isfraud", "spam", "is_spam", "variety", "sentiment", "death_event", "y_true"),
    *("ground_truth", "canceled", "cancelled", "is_canceled", "hired", "mortality", "dead", "died", "income_level"),
    "target_class",
)
"""Of a class in tables, where content agrees: less sure than :data:`LABEL_COLUMNS`."""
DOUBTFUL_LABEL_COLUMNS = (
    *("category", "income", "result", "results", "type", "quality", "status", "risk", "response", "direction"),
    *("case", "condition", "grade", "severity", "num", "pass", "passed", "satisfaction", "annotation"),
    *("winner", "won", "disease", "heart_disease", "heartdisease", "stroke", "diabetes", "cancer", "hypertension"),
)
"""Of a class, but of features as well: where there are two values, or it is at the edge as the only one of words."""
TABLE_LABEL_WORDS = re.compile(
    r"(?i:(^|[_ .\-])(class|target|label|outcome|diagnosis)s?([_ .\-/(]|$))|[a-z](Class|Target|Label|Outcome)$"
)
"""In names of columns of a class."""
SLIDE_LABEL_COLUMNS = (*LABEL_COLUMNS, "diagnosis", "slide_label", "wsi_label")
"""Of a class, in tables of slides."""
SLIDE_COLUMNS = (
    *("slide", "slide_id", "slide_name", "slideid", "slides", "filename", "file_name", "file", "image", "image_id"),
    *("image_name", "wsi", "wsi_id", "wsi_name", "wsi_filename"),
)
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "case", "case_id", "caseid", "subject", "subject_id")
IMAGE_COLUMNS = (
    *("file", "files", "filename", "file_name", "filepath", "file_path", "path", "paths", "image", "images", "img"),
    *("image_id", "imageid", "image_name", "image_path", "img_path", "image_file", "id", "id_code", "name"),
)
"""Of the file of an image, in tables of images."""
IMAGE_LABEL_COLUMNS = (
    *LABEL_COLUMNS,
    *("category", "class_name", "classname", "label_name", "labels_name", "class_label", "class_id", "label_id"),
    *(
        "category_name",
        "category_id",
        "emotion",
        "species",
        "breed",
        "diagnosis",
        "dx",
        "tag",
        "wnid",
        "predictionstring",
    ),
)
"""Of the class of an image, in tables of images."""
SPLIT_COLUMNS = ("split", "set", "data_set", "dataset", "part", "subset", "partition", "usage", "phase")
"""Of the part of an image, in tables of images."""
INPUT_ARRAYS = ("x", "inputs", "features", "data", "images")
"""Of the samples, in .npz archives of tables and images."""
FEATURE_KEYS = ("features", "feats", "feat", "feature", "embeddings", "embedding", "x")
"""Of a bag's features, in files of bags."""
COORDS_KEYS = ("coords", "coordinates", "coord", "xy", "locations")
"""Of the patches' positions, in files of bags."""
ENCODER_ATTRIBUTES = ("encoder", "extractor", "model_name", "encoder_name")
"""Of a features file, that say what made it: ncmi's and TRIDENT's, STAMP's, others'."""
MICRONS = ("um", "µm", "\u03bcm", "micron", "microns", "micrometer", "micrometers")
"""What attributes call microns."""
NONE, TRAIN, VALIDATION, TEST = -1, 0, 1, 2
"""Numbers of the parts that a sample may be given to by its data set."""
PART_NAMES = ("training", "validation", "test")
PART_WORDS: dict[str, int] = {
    **dict.fromkeys(("train", "training", "tr", "trn", "fit", "learn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development", "tune"), VALIDATION),
    **dict.fromkeys(("test", "testing", "te", "tst", "eval", "evaluation", "holdout", "hold_out"), TEST),
}
"""What files, folders and columns call the parts."""


def called_like(names: Iterable[str], usual: Collection[str]) -> list[str]:
    """Those of some names that are usual ones, in any case, with spaces, dots or hyphens for underscores.

    Example:
        >>> called_like(["Slide ID", "center", "slide"], SLIDE_COLUMNS)
        ['Slide ID', 'slide']
    """
    return [name for name in names if re.sub(r"[ .\-]+", "_", name.strip().lower()) in usual]


def attribute(attributes: Mapping[str, Any], name: str) -> float | None:
    """A number from 0 to 2³¹ of a data set's attributes, or the first of several that are meant for both axes."""
    try:
        value = float(np.asarray(attributes[name]).ravel()[0])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    return value if 0 <= value < 2**31 else None


def patch_side(attributes: Mapping[str, Any]) -> float | None:
    """Side of a patch in pixels of level 0 by TRIDENT's or CLAM's attributes; None where they do not say.

    TRIDENT's ``patch_size`` is the side at the wanted magnification, ``patch_size_level0`` the side at level 0. CLAM's
    ``patch_size`` is the side at ``patch_level``, which is ``downsample`` (times ``custom_downsample``) times smaller.
    """
    size, level0 = attribute(attributes, "patch_size"), attribute(attributes, "patch_size_level0")
    if level0 or not size:
        return level0 or None
    source, target = (attribute(attributes, f"{which}_magnification") for which in ("level0", "target"))
    if source and target:
        return size * source / target
    downsample = attribute(attributes, "downsample") or (1.0 if attribute(attributes, "patch_level") == 0 else None)
    return downsample and size * downsample * (attribute(attributes, "custom_downsample") or 1.0)


def patches_off_slide(coords: NDArray[Any], side: float | None) -> int:
    """How many patches lie wholly left of a slide or above it, by their upper left corners ``[N, 2]``.

    Patches that hang over the edge, as with padding, begin less than a side before it. Where the side is not known
    (None), each that begins before the edge counts.

    Example:
        >>> corners = np.array([[-200, 0], [0, -256], [5, 5]])
        >>> patches_off_slide(corners, 256), patches_off_slide(corners, None)
        (1, 2)
    """
    return int((coords <= -side if side else coords < 0).any(axis=1).sum())


def side_in_microns(attributes: Mapping[str, Any]) -> float | None:
    """Side of a patch in microns by STAMP's attributes, whose positions are microns too; 0 where it does not say.

    STAMP 2 says ``unit`` "um" and the side as ``tile_size``, later as ``tile_size_um`` beside ``tile_size_px``. None
    where positions are pixels.
    """
    unit = attributes.get("unit")
    in_microns = (unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)).lower() in MICRONS
    side = attribute(attributes, "tile_size_um") or (attribute(attributes, "tile_size") if in_microns else None)
    return side or (0.0 if in_microns else None)
