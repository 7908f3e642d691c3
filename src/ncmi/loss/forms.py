"""What forms the loss has: their names, defaults and checks, without torch, so that a command line can read them."""

import math
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral
from operator import ge, gt, le, lt
from typing import Any, Literal, get_args

Form = Literal["likelihood", "mean_of_ratios", "ratio_of_means"]
Reduction = Literal["mean", "sum", "none"]
Direction = Literal["centroid_to_sample", "sample_to_centroid"]
Distribution = Literal["nsf", "softmax"]
CentroidMode = Literal["fixed", "learned", "class_mean"]
Anchors = Literal["auto", "axis", "etf", "random", "signs"]
Center = Literal["none", "ema", "frozen"]
FeatureLength = float | Literal["auto", "own", "common"]
Separation = Literal["centroid_kl", "cross_entropy"]


@dataclass(frozen=True)
class NCMIForm:
    """A form of the NCMI loss; the one place of its defaults, and of the checks that need no data.

    The defaults are meant to need no search; docs/findings.md has the reasons and the figures.

    Attributes:
        temperature: T > 0, which the feature is divided by, besides its length.
        distribution: from features to distributions: normalized sigmoid, or softmax (an ablation).
        feature_length: what features are divided by. "own": each by its own length, as in the paper, so that only
            directions count. "common": all by s = 0.3·√D, so that lengths count as well; a number: all by that s.
            "auto": "own", but in recipes with AdamW and a perceptron (tables), the ConvNet or a bag network "common".
        centroids: learned by gradient, fixed at the anchors, or moving averages of the class means.
        anchors: where centroids start, see :func:`ncmi.anchor_directions`; "auto" takes axes, or where D < C directions
            as far apart as can be; "signs" are quick to make for a million classes.
        anchor_scale: κ, length of the anchors' logits, which are free thereafter, 10 in the paper; by default learned
            centroids are what features are: points of the feature's space that start at length s or, with
            feature_length="own", directions.
        center: what is subtracted from features: nothing, their moving average, or the first batches' mean.
        center_decay, centroid_decay: share of the old value that the moving averages keep.
        separation_power: p of the mean over the wrong classes, 1 in the paper; by default −max(2, log C), or twice that
            where each feature has its own length.
        separation_direction: KL(P‖Q_c), or as in the paper KL(Q_c‖P), for the wrong classes.
        form: a likelihood, the released script's mean of ratios, or the paper's ratio of means.
        robustness: 0 for clean labels, up to 1; or "auto" where labels may be wrong: the running mean of the model's
            highest probability, but no more than the square of 15 times the share of labels that are not its most
            probable class. Where many labels are wrong, learning rates of 1/2 to 1/32 of the usual one are worth a try.
        weight: "balanced": weigh each class by N/(C·n_c).
        label_smoothing: share of the target that goes to all classes alike, 0 to 1.

    Raises:
        ValueError: for options out of range or that exclude each other; the message names the cure.
    """

    temperature: float = 0.5
    distribution: Distribution = "nsf"
    feature_length: FeatureLength = "auto"
    centroids: CentroidMode = "learned"
    anchors: Anchors = "auto"
    anchor_scale: float | None = None
    center: Center = "none"
    center_decay: float = 0.999
    centroid_decay: float = 0.99
    separation_power: float | None = None
    separation_direction: Direction = "sample_to_centroid"
    form: Form = "likelihood"
    robustness: float | Literal["auto"] = 0.0
    weight: Literal["balanced"] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_map(self.temperature, self.distribution, self.feature_length)
        check_choice("centroids", self.centroids, CentroidMode)
        check_choice("anchors", self.anchors, Anchors)
        check_choice("center", self.center, Center)
        check_range(
            self, "anchor_scale", above=0, below=math.inf, cure="or None for centroids that are as features are"
        )
        check_range(self, "center_decay", "centroid_decay", least=0, below=1, cure="e.g. 0.99")
        if isinstance(self.robustness, str) and self.robustness != "auto":
            raise ValueError(f"unknown robustness {self.robustness!r}: use 0 to 1, or auto")
        if self.robustness != "auto":
            check_number("robustness", self.robustness)
        if self.separation_power is not None:
            check_number("separation_power", self.separation_power)
        power = -1.0 if self.separation_power is None else self.separation_power
        robustness = 1.0 if self.robustness == "auto" else self.robustness
        check_loss(self.form, power, self.separation_direction, robustness)
        check_weight(self.weight)
        check_range(self, "label_smoothing", least=0, most=1, cure="usually 0.1")


def likelihood_power(num_classes: int, own_length: bool = False) -> float:
    """The default γ = −p for C classes: ``max(2, log C)``, or twice that where each feature has its own length.

    For π_y to win over C − 1 classes at typical distance, ``(a/b)^γ`` must be below 1/C: what ratio a/b that asks for
    depends on γ/log C alone. Fixed γ would ask more of the features the more classes there are. Features that can go
    to their centroid by their length as well come closer, and need less.

    >>> likelihood_power(2), round(likelihood_power(100), 2), round(likelihood_power(100, own_length=True), 2)
    (2.0, 4.61, 9.21)
    """
    return (2 if own_length else 1) * max(2.0, math.log(num_classes))


def check_sizes(num_classes: int, feature_dim: int) -> None:
    """Raise ValueError for sizes that no classifier has."""
    check_whole(num_classes=num_classes, feature_dim=feature_dim)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classifier needs at least 2 classes")
    if feature_dim < 1:
        raise ValueError(f"feature_dim={feature_dim}: the network's feature needs at least 1 component")


def check_number(name: str, value: Any) -> None:
    """Raise ValueError for what is no number, such as text that spells one; tensors of one number are numbers."""
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise ValueError(f"{name}={value!r}: must be a number")


def check_whole(**values: Any) -> None:
    """Raise ValueError for the first of some arguments, by their names, that is no whole number.

    >>> check_whole(num_classes=2.0)
    Traceback (most recent call last):
    ValueError: num_classes=2.0: must be a whole number
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name}={value!r}: must be a whole number")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError, listing the choices of a ``Literal``, for a value that is none of them."""
    if value not in get_args(choices):
        raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(get_args(choices))}")


def check_range(
    options: object,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    cure: str = "",
) -> None:
    """Raise ValueError for the first of some fields of ``options`` that is no number or out of bounds.

    Fields of a dataclass that are int must be whole, and None is allowed where their type has it.
    """
    types = {field.name: field.type for field in fields(options)} if is_dataclass(options) else {}
    bounds = (("at least", ge, least), ("above", gt, above), ("at most", le, most), ("below", lt, below))
    for name in names:
        value = getattr(options, name)
        if value is None and "None" in str(types.get(name)):
            continue
        check_number(name, value)
        if types.get(name) in (int, int | None, "int", "int | None"):
            check_whole(**{name: value})
        if not all(holds(value, bound) for _, holds, bound in bounds if bound is not None):
            words = " and ".join(
                "finite" if abs(bound) == math.inf else f"{word} {bound}"
                for word, _, bound in bounds
                if bound is not None
            )
            raise ValueError(f"{name}={value}: must be {words}{cure and ', ' + cure}")


def check_weight(weight: Any) -> None:
    """Raise ValueError for another word than ``"balanced"``; numbers are checked where C is known."""
    if isinstance(weight, str) and weight != "balanced":
        raise ValueError(f"unknown weight {weight!r}: use 'balanced', C numbers or None")


def check_reduction(form: str, reduction: str) -> None:
    """Raise ValueError for an unknown reduction, or one that the form does not have."""
    check_choice("reduction", reduction, Reduction)
    if form == "ratio_of_means" and reduction != "mean":
        raise ValueError(
            f"reduction={reduction!r}: form='ratio_of_means' is one number for a batch and has no terms; "
            "use reduction='mean', or form='mean_of_ratios'"
        )


def common_length(feature_length: FeatureLength, feature_dim: int) -> float | None:
    """The length s that features ``[..., D]`` are divided by, or None for each one's own.

    >>> common_length("common", 100), common_length(2.0, 100), common_length("own", 100)
    (3.0, 2.0, None)
    """
    if isinstance(feature_length, str):
        return 0.3 * math.sqrt(feature_dim) if feature_length == "common" else None
    return float(feature_length)


def check_map(temperature: Any, distribution: str, feature_length: FeatureLength) -> None:
    """Check the map from feature to distribution; a temperature that is a tensor is not looked at."""
    if isinstance(temperature, (str, bool, list, tuple)) or temperature is None:
        check_number("temperature", temperature)
    if isinstance(temperature, (int, float)) and not (temperature > 0 and temperature < math.inf):
        raise ValueError(
            f"temperature={temperature}: it divides the feature and must be above 0 and finite (usual: 0.05 to 2)"
        )
    check_choice("distribution", distribution, Distribution)
    if isinstance(feature_length, str):
        check_choice("feature_length", feature_length, get_args(FeatureLength)[1])
    elif (
        not hasattr(feature_length, "__float__")
        or isinstance(feature_length, bool)
        or not 0 < feature_length < math.inf
    ):
        raise ValueError(f"feature_length={feature_length}: use own, common, or a length above 0")


def check_loss(form: str, separation_power: float, separation_direction: str, robustness: Any = 0.0) -> None:
    """Check the options that function and module share; a robustness that is a tensor is not looked at.

    Raises:
        ValueError: for an unknown name, a power that is not a number, a likelihood with p ≥ 0, a robustness outside
            [0, 1] or without likelihood.
    """
    check_choice("form", form, Form)
    check_choice("separation_direction", separation_direction, Direction)
    if separation_power != separation_power:  # a compiler does not know math.isnan of a symbol
        raise ValueError("separation_power is NaN: use 1 (the paper) or a negative power such as -4")
    if form == "likelihood" and not -math.inf < separation_power < 0:
        raise ValueError(
            f"form='likelihood' needs a finite separation_power below 0, got {separation_power}: use e.g. -4"
        )
    # to look at a tensor would wait for the device
    is_number = isinstance(robustness, (int, float))
    if is_number and not 0 <= robustness <= 1:
        raise ValueError(f"robustness={robustness}: choose 0 (clean labels) to 1, for the module also 'auto'")
    if form != "likelihood" and not (is_number and robustness == 0):
        raise ValueError(f"robustness={robustness} bounds a likelihood: use it with form='likelihood', or 0")
