"""PolyLoss: cross-entropy with the first term of its Taylor series at p = 1 reweighed."""

import torch
from torch import Tensor

from ncmi.objectives.interface import LossObjective, expectation, on_rows
from ncmi.objectives.options import PolyOptions


@on_rows
def poly_loss(logits: Tensor, labels: Tensor, epsilon: float = PolyOptions.epsilon) -> Tensor:
    """Mean of ``−log p_y + ε₁ (1 − p_y)``, p the softmax of the logits (Poly-1); a scalar, ≥ 0.

    Args:
        logits, labels: ``[B, C]`` and ``[B]`` or soft ``[B, C]``; these and the errors: see :mod:`ncmi.objectives`.
        epsilon: ε₁ ≥ −1; 0 is cross-entropy, −1 drops the leading term.

    Source: Leng et al. 2022, "PolyLoss", arXiv 2204.12511, Poly-1.

    Example:
        >>> poly_loss(torch.zeros(1, 2), torch.tensor([0]))  # log 2 + ½
        tensor(1.1931)
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return expectation(-log_p - epsilon * torch.expm1(log_p), labels)


class PolyObjective(LossObjective):
    """:func:`poly_loss` of the logits of a linear head."""

    options_type = PolyOptions
    function = staticmethod(poly_loss)
