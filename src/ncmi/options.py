"""Objectives by name, with typed options. This page imports no torch, so a command line can be parsed at once.

Every options class names the :class:`ncmi.objective.Objective` that it makes; a user's own is registered so::

    @register_objective("mine")
    @dataclass(frozen=True)
    class MineOptions(ObjectiveOptions):
        sharpness: float = 1.0
        target: ClassVar[str] = "my_package.my_module:MineObjective"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

if TYPE_CHECKING:
    from ncmi.objective import Objective

Reduction = Literal["mean_of_ratios", "ratio_of_means", "log_likelihood", "none"]
Direction = Literal["centroid_to_sample", "sample_to_centroid"]
Distribution = Literal["nsf", "softmax"]
CentroidMode = Literal["fixed", "learned", "class_mean"]
Anchors = Literal["auto", "axis", "etf", "random"]
Centre = Literal["none", "ema", "frozen"]


@dataclass(frozen=True)
class Alternation:
    """Whose turn it is, the network's or the centroids'; see :class:`ncmi.AlternatingOptimiser`.

    Attributes:
        mode: "joint": both move at every step, from one backward pass. "phases": strictly in turn. "class_means": the
            network alone moves; at the end of each epoch the centroids are put to the true class means (closed form).
        network_steps, centroid_steps: length of the phases in optimiser steps.
        start_epoch: epoch (from 0) before which the centroids stand still.
    """

    mode: Literal["joint", "phases", "class_means"] = "joint"
    network_steps: int = 1
    centroid_steps: int = 1
    start_epoch: int = 0

    def __post_init__(self) -> None:
        if self.network_steps < 1 or self.centroid_steps < 1 or self.start_epoch < 0:
            raise ValueError(f"{self}: phases need at least 1 step each and the start epoch at least 0")

    def turn(self, step: int, epoch: int) -> tuple[bool, bool]:
        """Whether (network, centroids) move at this optimiser step of the run (from 0) in this epoch (from 0)."""
        if epoch < self.start_epoch or self.mode == "class_means":
            return True, False
        if self.mode == "joint":
            return True, True
        network = step % (self.network_steps + self.centroid_steps) < self.network_steps
        return network, not network


@dataclass(frozen=True)
class ObjectiveOptions:
    """Base of all objectives' options: the fields are keyword arguments of the objective that ``target`` names."""

    name: ClassVar[str]
    target: ClassVar[str]

    def build(self, num_classes: int, feature_dim: int) -> Objective:
        """Make the objective for ``num_classes`` classes on features of width ``feature_dim``."""
        module, _, attribute = self.target.partition(":")
        make: Callable[..., Objective] = getattr(import_module(module), attribute)
        return make(num_classes, feature_dim, **{field.name: getattr(self, field.name) for field in fields(self)})


_REGISTRY: dict[str, type[ObjectiveOptions]] = {}


T = TypeVar("T", bound=type[ObjectiveOptions])


def register_objective(name: str) -> Callable[[T], T]:
    """Class decorator: make an options class known under ``name``.

    Raises:
        ValueError: if the name is taken by another class.
    """

    def register(options: T) -> T:
        if name in _REGISTRY and _REGISTRY[name] is not options:
            raise ValueError(f"objective {name!r} is registered already; choose another name")
        options.name = name
        _REGISTRY[name] = options
        return options

    return register


def objective_names() -> tuple[str, ...]:
    """Names of all registered objectives, in order of registration."""
    return tuple(_REGISTRY)


def objective_options(name: str) -> type[ObjectiveOptions]:
    """The options class of a registered objective.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
    """
    if name not in _REGISTRY:
        raise KeyError(f"unknown objective {name!r}; known: {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def make_objective(name: str, num_classes: int, feature_dim: int, **options: Any) -> Objective:
    """Make an objective by name, e.g. ``make_objective("focal", 10, 512, gamma=3.0)``."""
    return objective_options(name)(**options).build(num_classes, feature_dim)


@register_objective("ncmi")
@dataclass(frozen=True)
class NCMIOptions(ObjectiveOptions):
    """NCMI: within-class concentration over between-class separation (arXiv 2601.02543); see :class:`ncmi.NCMILoss`.

    The defaults are meant to need no search; docs/findings.md has the reasons and the figures.

    Attributes:
        temperature: T, which the unit-length feature is divided by.
        distribution: from features to distributions: normalised sigmoid, or softmax (an ablation).
        homogeneous: h; above 0, h·√D stands behind the feature before it is brought to unit length, so that its length
            counts as well. 0 is the paper's, 1 the usual other value.
        centroids: learned by gradient, fixed at the anchors, or moving averages of the class means.
        anchors: where centroids start; "auto" takes axes, or where D < C directions as far apart as can be.
        anchor_scale: κ of the paper, 10 there; by default centroids stay where features can be.
        centre: what is subtracted from features: nothing, their moving average, or the first batches' mean.
        centre_decay: of that moving average.
        centroid_decay: of the class means' moving average.
        separation_power: p of the mean over the wrong classes, 1 in the paper; by default −max(4, 2 log C).
        separation_direction: KL(P‖Q_c), or as in the paper KL(Q_c‖P), for the wrong classes.
        reduction: a likelihood, the released script's mean of ratios, or the paper's ratio of means.
        robustness: 0 for clean labels, up to 1, or "auto" where many labels are wrong.
        class_weights: "balanced": weigh each class by N/(C·n_c).
    """

    temperature: float = 0.5
    distribution: Distribution = "nsf"
    homogeneous: float = 0.0
    centroids: CentroidMode = "learned"
    anchors: Anchors = "auto"
    anchor_scale: float | None = None
    centre: Centre = "none"
    centre_decay: float = 0.999
    centroid_decay: float = 0.99
    separation_power: float | None = None
    separation_direction: Direction = "sample_to_centroid"
    reduction: Reduction = "log_likelihood"
    robustness: float | Literal["auto"] = 0.0
    class_weights: Literal["balanced"] | None = None
    target: ClassVar[str] = "ncmi.loss:NCMILoss"

    @classmethod
    def robust(cls) -> NCMIOptions:
        """The setting for training labels of which many are wrong."""
        return cls(robustness="auto")


@register_objective("cross_entropy")
@dataclass(frozen=True)
class CrossEntropyOptions(ObjectiveOptions):
    """Cross-entropy on the logits of a linear head; for long tails balanced, or on adjusted logits (Menon et al. 2021).

    Attributes:
        class_weights: "balanced": weigh each class by N/(C·n_c).
        logit_adjustment: τ: train on logits + τ·log(class frequency); 0 is off, 1 is usual.
    """

    class_weights: Literal["balanced"] | None = None
    logit_adjustment: float = 0.0
    target: ClassVar[str] = "ncmi.baselines.cross_entropy:CrossEntropyObjective"


@register_objective("label_smoothing")
@dataclass(frozen=True)
class LabelSmoothingOptions(ObjectiveOptions):
    """Cross-entropy against (1−ε)·onehot + ε/C (Szegedy et al. 2016)."""

    epsilon: float = 0.1
    target: ClassVar[str] = "ncmi.baselines.label_smoothing:LabelSmoothingObjective"


@register_objective("focal")
@dataclass(frozen=True)
class FocalOptions(ObjectiveOptions):
    """Focal loss −(1−p_y)^γ log p_y (Lin et al. 2017)."""

    gamma: float = 2.0
    target: ClassVar[str] = "ncmi.baselines.focal:FocalObjective"


@register_objective("poly")
@dataclass(frozen=True)
class PolyOptions(ObjectiveOptions):
    """PolyLoss, Poly-1: −log p_y + ε₁(1−p_y) (Leng et al. 2022)."""

    epsilon: float = 1.0
    target: ClassVar[str] = "ncmi.baselines.poly:PolyObjective"


@register_objective("square")
@dataclass(frozen=True)
class SquareOptions(ObjectiveOptions):
    """Square loss on logits (Hui & Belkin 2021). ``None`` takes the usual k and M for the number of classes."""

    k: float | None = None
    target_value: float | None = None
    target: ClassVar[str] = "ncmi.baselines.square:SquareObjective"


@register_objective("squentropy")
@dataclass(frozen=True)
class SquentropyOptions(ObjectiveOptions):
    """Cross-entropy plus the mean square of the wrong classes' logits (Hui, Belkin & Wright 2023)."""

    target: ClassVar[str] = "ncmi.baselines.squentropy:SquentropyObjective"


@register_objective("anticlass")
@dataclass(frozen=True)
class AntiClassOptions(ObjectiveOptions):
    """Cross-entropy plus γ times the one-vs-complement cross-entropy of the opposite logits (AntiClass)."""

    gamma: float = 1.0
    target: ClassVar[str] = "ncmi.baselines.anticlass:AntiClassObjective"


@register_objective("opl")
@dataclass(frozen=True)
class OPLOptions(ObjectiveOptions):
    """Cross-entropy plus orthogonal projection loss on the features (Ranasinghe et al. 2021)."""

    weight: float = 1.0
    gamma: float = 0.5
    target: ClassVar[str] = "ncmi.baselines.opl:OPLObjective"


@register_objective("supcon")
@dataclass(frozen=True)
class SupConOptions(ObjectiveOptions):
    """Supervised contrastive loss on two views behind a projection head (Khosla et al. 2020)."""

    temperature: float = 0.1
    projection_dim: int = 128
    prototype_decay: float = 0.99
    target: ClassVar[str] = "ncmi.baselines.supcon:SupConObjective"


@register_objective("cmic")
@dataclass(frozen=True)
class CMICOptions(ObjectiveOptions):
    """CMIC-DL: cross-entropy + λ·KL(P‖Q_y) − β·Γ over class probabilities (Yang et al. 2023)."""

    concentration_weight: float = 0.5
    separation_weight: float = 1e-4  # Γ has no upper bound: 1e-3 already costs accuracy on digits
    centroid_decay: float = 0.9999
    target: ClassVar[str] = "ncmi.baselines.cmic:CMICObjective"


@register_objective("generalised_cross_entropy")
@dataclass(frozen=True)
class GeneralisedCrossEntropyOptions(ObjectiveOptions):
    """Generalised cross-entropy (1−p_y^q)/q, robust to wrong labels (Zhang & Sabuncu 2018)."""

    q: float = 0.7
    target: ClassVar[str] = "ncmi.baselines.generalised_cross_entropy:GeneralisedCrossEntropyObjective"


@register_objective("symmetric_cross_entropy")
@dataclass(frozen=True)
class SymmetricCrossEntropyOptions(ObjectiveOptions):
    """Symmetric cross-entropy −α log p_y − β·A·(1−p_y), robust to wrong labels (Wang et al. 2019).

    Attributes:
        alpha, beta: published: 0.1 and 1 for CIFAR-10, 6 and 0.1 for CIFAR-100.
        log_zero: A, what stands for log 0.
    """

    alpha: float = 0.1
    beta: float = 1.0
    log_zero: float = -4.0
    target: ClassVar[str] = "ncmi.baselines.symmetric_cross_entropy:SymmetricCrossEntropyObjective"
