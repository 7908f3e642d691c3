"""Labels and soft targets that are refused before anything is computed with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ncmi.loss.checks import as_rows, check_labels


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0, -1]), "labels run from -1.*leave out the samples"),
        (torch.tensor([0, 3]), "labels run to 3 but num_classes is 3: pass num_classes=4"),
        (torch.tensor([], dtype=torch.long), "2 samples but 0 labels"),
        (torch.zeros(2), r"labels are torch\.float32.*labels\.long\(\)"),
        (torch.full((0, 3), 1 / 3), "empty batch|2 samples but 0 labels"),
        (torch.full((2, 4), 1 / 4), "4 columns but num_classes is 3"),
        (torch.full((2, 3), 1.0), "do not sum to 1"),
        (torch.full((2, 3), torch.nan), "negative or NaN"),
        (torch.full((3, 3), 1 / 3), "2 samples but 3 labels"),
    ],
)
def test_targets(targets: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_rows(torch.zeros(2, 5), targets, 3)


def test_values_that_cannot_be_read_without_waiting_are_not() -> None:
    """As on a GPU: shape and type are checked, values are not looked at."""
    check_labels(torch.tensor([7], device="meta"), 3)
    as_rows(torch.ones(2, 5, device="meta"), torch.ones(2, 3, device="meta"), 3)
