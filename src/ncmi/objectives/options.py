"""Objectives by name, with typed options. This page imports no torch, so a command line can be parsed at once.

Every options class names the :class:`ncmi.objectives.interface.Objective` that it makes; a user's own is registered::

    @register_objective("mine")
    @dataclass(frozen=True)
    class MineOptions(ObjectiveOptions):
        sharpness: float = 1.0
        target: ClassVar[str] = "my_package.my_module:MineObjective"
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from ncmi.loss.forms import NCMIForm, check_range, check_weight

if TYPE_CHECKING:
    from ncmi.objectives.interface import Objective


@dataclass(frozen=True)
class ObjectiveOptions:
    """Base of all objectives' options: the fields are keyword arguments of the objective that ``target`` names.

    Defaults stand here and nowhere else, and ``__post_init__`` checks what needs no data: it raises ValueError.

    Attributes:
        name, label: of the objective, as it is registered.
        target: module and class of the objective.
        compares_features: whether the loss compares features as they are; else they go through a layer of its own.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    target: ClassVar[str]
    compares_features: ClassVar[bool] = False

    def settled(self, *, common_length: bool) -> Self:
        """These options with what they leave to the recipe: whether features do well with one length for all."""
        return self

    def build(self, num_classes: int, feature_dim: int) -> Objective:
        """Make the objective for ``num_classes`` classes on features of width ``feature_dim``."""
        module, _, attribute = self.target.partition(":")
        make: Callable[..., Objective] = getattr(import_module(module), attribute)
        return make(num_classes, feature_dim, **{field.name: getattr(self, field.name) for field in fields(self)})


_REGISTRY: dict[str, type[ObjectiveOptions]] = {}
T = TypeVar("T", bound=type[ObjectiveOptions])


def register_objective(name: str, *, label: str | None = None) -> Callable[[T], T]:
    """Class decorator: make an options class known under ``name``.

    Args:
        name: what it is called at the command line and in files.
        label: what tables and pages call it; by default the name.

    Raises:
        ValueError: if the name is taken by another class.
    """

    def register(options: T) -> T:
        if name in _REGISTRY and _REGISTRY[name] is not options:
            raise ValueError(f"objective {name!r} is registered already; choose another name")
        options.name = name
        options.label = label or name
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


@register_objective("ncmi", label="NCMI")
@dataclass(frozen=True)
class NCMIOptions(NCMIForm, ObjectiveOptions):
    """NCMI: within-class concentration over between-class separation (arXiv 2601.02543); see :class:`ncmi.NCMILoss`."""

    target: ClassVar[str] = "ncmi.objectives.ncmi:NCMIObjective"
    compares_features: ClassVar[bool] = True

    def settled(self, *, common_length: bool) -> Self:
        if self.feature_length != "auto":
            return self
        return replace(self, feature_length="common" if common_length else "own")

    @classmethod
    def robust(cls) -> NCMIOptions:
        """The setting where many training labels are wrong; try learning rates of 1/2 to 1/32 of the usual one."""
        return cls(robustness="auto")


@register_objective("cross_entropy", label="Cross-entropy")
@dataclass(frozen=True)
class CrossEntropyOptions(ObjectiveOptions):
    """Cross-entropy on the logits of a linear head; for long tails balanced, or on adjusted logits (Menon et al. 2021).

    Attributes:
        weight: "balanced": weigh each class by N/(C·n_c).
        logit_adjustment: τ: train on logits + τ·log(class frequency); 0 is off, 1 is usual.
    """

    weight: Literal["balanced"] | None = None
    logit_adjustment: float = 0.0
    target: ClassVar[str] = "ncmi.objectives.cross_entropy:CrossEntropyObjective"

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_range(self, "logit_adjustment", least=0, below=math.inf, cure="usually 1; 0 is off")


@register_objective("label_smoothing", label="Label smoothing")
@dataclass(frozen=True)
class LabelSmoothingOptions(ObjectiveOptions):
    """Cross-entropy against (1−ε)·onehot + ε/C (Szegedy et al. 2016)."""

    epsilon: float = 0.1
    target: ClassVar[str] = "ncmi.objectives.label_smoothing:LabelSmoothingObjective"

    def __post_init__(self) -> None:
        check_range(self, "epsilon", least=0, most=1, cure="usually 0.1")


@register_objective("focal", label="Focal")
@dataclass(frozen=True)
class FocalOptions(ObjectiveOptions):
    """Focal loss −(1−p_y)^γ log p_y (Lin et al. 2017)."""

    gamma: float = 2.0
    target: ClassVar[str] = "ncmi.objectives.focal:FocalObjective"

    def __post_init__(self) -> None:
        check_range(self, "gamma", least=0, below=math.inf, cure="usually 2")


@register_objective("poly", label="PolyLoss")
@dataclass(frozen=True)
class PolyOptions(ObjectiveOptions):
    """PolyLoss, Poly-1: −log p_y + ε₁(1−p_y) (Leng et al. 2022)."""

    epsilon: float = 1.0
    target: ClassVar[str] = "ncmi.objectives.poly:PolyObjective"

    def __post_init__(self) -> None:
        check_range(
            self, "epsilon", least=-1, below=math.inf, cure="usually 1"
        )  # below, a wrong answer would be rewarded


@register_objective("square", label="Square loss")
@dataclass(frozen=True)
class SquareOptions(ObjectiveOptions):
    """Square loss on logits (Hui & Belkin 2021). ``None`` takes the usual k and M for the number of classes."""

    k: float | None = None
    target_value: float | None = None
    target: ClassVar[str] = "ncmi.objectives.square:SquareObjective"

    def __post_init__(self) -> None:
        check_range(self, "k", "target_value", above=0, below=math.inf, cure="None takes the usual value")


@register_objective("squentropy", label="Squentropy")
@dataclass(frozen=True)
class SquentropyOptions(ObjectiveOptions):
    """Cross-entropy plus the mean square of the wrong classes' logits (Hui, Belkin & Wright 2023)."""

    target: ClassVar[str] = "ncmi.objectives.squentropy:SquentropyObjective"


@register_objective("anticlass", label="AntiClass")
@dataclass(frozen=True)
class AntiClassOptions(ObjectiveOptions):
    """Cross-entropy plus γ times the one-vs-complement cross-entropy of the opposite logits (AntiClass)."""

    gamma: float = 1.0
    target: ClassVar[str] = "ncmi.objectives.anticlass:AntiClassObjective"

    def __post_init__(self) -> None:
        check_range(self, "gamma", least=0, below=math.inf, cure="usually 1")


@register_objective("opl", label="OPL")
@dataclass(frozen=True)
class OPLOptions(ObjectiveOptions):
    """Cross-entropy plus orthogonal projection loss on the features (Ranasinghe et al. 2021)."""

    opl_weight: float = 1.0
    gamma: float = 0.5
    target: ClassVar[str] = "ncmi.objectives.opl:OPLObjective"

    def __post_init__(self) -> None:
        check_range(self, "opl_weight", "gamma", least=0, below=math.inf, cure="usually weight 1 and gamma 0.5")


@register_objective("supcon", label="SupCon")
@dataclass(frozen=True)
class SupConOptions(ObjectiveOptions):
    """Supervised contrastive loss on two views behind a projection head (Khosla et al. 2020)."""

    temperature: float = 0.1
    projection_dim: int = 128
    prototype_decay: float = 0.99
    target: ClassVar[str] = "ncmi.objectives.supcon:SupConObjective"

    def __post_init__(self) -> None:
        check_range(self, "temperature", above=0, below=math.inf, cure="usually 0.1")
        check_range(self, "projection_dim", least=1, cure="usually 128")
        check_range(self, "prototype_decay", least=0, below=1, cure="usually 0.99")


@register_objective("cmic", label="CMIC-DL")
@dataclass(frozen=True)
class CMICOptions(ObjectiveOptions):
    """CMIC-DL: cross-entropy + λ·KL(P‖Q_y) − β·Γ over class probabilities (Yang et al. 2023)."""

    concentration_weight: float = 0.5
    separation_weight: float = 1e-4  # Γ has no upper bound: 1e-3 already costs accuracy on digits
    centroid_decay: float = 0.9999
    target: ClassVar[str] = "ncmi.objectives.cmic:CMICObjective"

    def __post_init__(self) -> None:
        check_range(
            self, "concentration_weight", "separation_weight", least=0, below=math.inf, cure="usually 0.5 and 1e-4"
        )
        check_range(self, "centroid_decay", least=0, below=1, cure="usually 0.9999")


@register_objective("generalized_cross_entropy", label="GCE")
@dataclass(frozen=True)
class GeneralizedCrossEntropyOptions(ObjectiveOptions):
    """Generalized cross-entropy (1−p_y^q)/q, robust to wrong labels (Zhang & Sabuncu 2018)."""

    q: float = 0.7
    target: ClassVar[str] = "ncmi.objectives.generalized_cross_entropy:GeneralizedCrossEntropyObjective"

    def __post_init__(self) -> None:
        check_range(self, "q", above=0, most=1, cure="usually 0.7")


@register_objective("symmetric_cross_entropy", label="SCE")
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
    target: ClassVar[str] = "ncmi.objectives.symmetric_cross_entropy:SymmetricCrossEntropyObjective"

    def __post_init__(self) -> None:
        check_range(self, "alpha", "beta", least=0, below=math.inf, cure="e.g. 0.1 and 1")
        check_range(self, "log_zero", above=-math.inf, below=0, cure="usually -4")
        if self.alpha + self.beta == 0:
            raise ValueError("alpha=0, beta=0: one of them must be above 0, e.g. 0.1 and 1")
