"""The losses that NCMI is compared with: one file each, a pure function and a thin objective over it.

The functions take logits (or features) and labels and are here by name; the objectives are made by
:func:`ncmi.options.make_objective`.
"""

from ncmi.baselines.anticlass import anticlass_loss
from ncmi.baselines.cmic import cmic_loss
from ncmi.baselines.cross_entropy import cross_entropy_loss
from ncmi.baselines.focal import focal_loss
from ncmi.baselines.generalised_cross_entropy import generalised_cross_entropy_loss
from ncmi.baselines.label_smoothing import label_smoothing_loss
from ncmi.baselines.opl import opl_loss
from ncmi.baselines.poly import poly_loss
from ncmi.baselines.square import square_loss
from ncmi.baselines.squentropy import squentropy_loss
from ncmi.baselines.supcon import supcon_loss
from ncmi.baselines.symmetric_cross_entropy import symmetric_cross_entropy_loss

__all__ = [
    "anticlass_loss",
    "cmic_loss",
    "cross_entropy_loss",
    "focal_loss",
    "generalised_cross_entropy_loss",
    "label_smoothing_loss",
    "opl_loss",
    "poly_loss",
    "square_loss",
    "squentropy_loss",
    "supcon_loss",
    "symmetric_cross_entropy_loss",
]
