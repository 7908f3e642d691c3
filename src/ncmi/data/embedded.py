"""Real data that comes with scikit-learn: always there, also offline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ncmi.data.dataset import Dataset

EMBEDDED = ("digits", "wine", "breast_cancer", "iris")


def load_embedded(name: str) -> Dataset:
    """One of scikit-learn's embedded data sets, by name.

    - ``digits``: 1,797 handwritten digits, grey 8×8, 10 classes. The original levels 0…16 are stretched to
      0…255 (rounded, no two levels merged), so that a trained network reads image files on the same scale.
    - ``wine``: 178 wines, 13 measurements, 3 classes.
    - ``breast_cancer``: 569 tumours, 30 measurements, 2 classes.
    - ``iris``: 150 flowers, 4 measurements, 3 classes.

    Raises:
        ValueError: for another name; the message lists the known ones.

    Example:
        >>> load_embedded("digits").inputs.shape
        torch.Size([1797, 1, 8, 8])
    """
    if name not in EMBEDDED:
        raise ValueError(f"no embedded data set {name!r}: choose one of {', '.join(EMBEDDED)}")
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{name}")()
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    class_names = tuple(str(c) for c in bunch.target_names)
    if name == "digits":
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        return Dataset(name, torch.from_numpy(pixels)[:, None], labels, class_names, "image")
    inputs = torch.from_numpy(bunch.data.astype(np.float32))
    return Dataset(name, inputs, labels, class_names, "table", tuple(str(f) for f in bunch.feature_names))
