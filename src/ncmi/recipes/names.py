"""What everything is called, in one place: at the command line, in tables, pages, CSV files and docs.

An objective's name stands with its options (``ObjectiveOptions.label``). This page imports no torch.
"""

from collections.abc import Callable

from ncmi.objectives.options import objective_options
from ncmi.recipes import cifar100, imagenet
from ncmi.recipes.recipe import Recipe

BASELINE = "cross_entropy"
"""The objective that others are compared with."""

READOUTS: dict[str, str] = {"head": "head", "cc": "CC", "lp": "LP", "knn": "kNN"}
"""How a model decides: by its own trained head, by centroid comparison, a linear probe, or nearest neighbors."""

READOUTS_IN_WORDS: dict[str, str] = {
    "head": "trained head",
    "cc": "centroid comparison (CC)",
    "lp": "linear probe (LP)",
    "knn": "20 nearest neighbors (kNN)",
}


def samples_in_words(kind: str, *, grouped: bool) -> str:
    """What samples are resampled as: patients of slides, groups of others, or each by itself."""
    return ("patients" if kind == "bags" else "groups") if grouped else "samples"


NOT_THE_TEST_PART: dict[str, str] = {
    "test": "",
    "validation": "There is no test part: what is judged is the validation part, and where anything was chosen by it "
    "the figures are too good.",
    "train": "There is neither test nor validation part: what is judged is the training part itself, and the "
    "figures say nothing on new data.",
}
"""What must be said of figures, by the part that is judged."""

NETWORKS: dict[str, str] = {
    "mlp": "MLP",
    "convnet": "ConvNet",
    "resnet_small": "ResNet-small",
    "resnet9": "ResNet-9",
    "resnet9_early": "ResNet-9, pooled early",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "abmil": "ABMIL",
    "transmil": "TransMIL",
    "aem": "AEM",
    "asmil": "ASMIL",
    "mean": "Mean pooling",
    "max": "Max pooling",
}

_RECIPES: dict[str, Callable[..., Recipe]] = {
    "cifar100.paper": cifar100.paper,
    "cifar100.released": cifar100.released,
    "cifar100.fast": cifar100.fast,
    "cifar100.cpu": cifar100.cpu,
    "cifar100.cpu_fast": cifar100.cpu_fast,
    "cifar100.small": cifar100.small,
    "imagenet.paper": imagenet.imagenet_paper,
    "imagenet.short": imagenet.imagenet_short,
    "imagenet.tiny": imagenet.imagenet_tiny,
}


def recipe_names() -> tuple[str, ...]:
    """Names that :func:`named_recipe` knows."""
    return tuple(_RECIPES)


def describe_recipe(name: str) -> str:
    """What a recipe is, with its expected result: its docstring."""
    return " ".join((_find(name).__doc__ or "").split())


def named_recipe(name: str) -> Recipe:
    """The recipe of this name, with its own objective.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.
    """
    return _find(name)()


def _find(name: str) -> Callable[..., Recipe]:
    if name not in _RECIPES:
        raise KeyError(f"unknown recipe {name!r}; known: {', '.join(_RECIPES)}")
    return _RECIPES[name]


def objective_label(name: str) -> str:
    """What an objective is called; one that is not registered here, by the name that it was given."""
    try:
        return objective_options(name).label
    except KeyError:
        return name


def network_label(name: str) -> str:
    """What a network is called."""
    return NETWORKS.get(name, name)


def method_label(objective: str, readout: str) -> str:
    """An objective's label with the way that its model decides; the head goes without saying.

    >>> method_label("NCMI", "cc"), method_label("Focal", "head")
    ('NCMI-CC', 'Focal')
    >>> method_label("NCMI (released)", "lp"), method_label("softmax, centered", "cc")
    ('NCMI-LP (released)', 'softmax, centered, CC')
    """
    if readout == "head":
        return objective
    suffix = READOUTS.get(readout, readout)
    name, bracket, rest = objective.partition(" (")
    if bracket and rest.endswith(")"):
        return f"{name}-{suffix}{bracket}{rest}"
    return f"{objective}, {suffix}" if ", " in objective else f"{objective}-{suffix}"


def run_name(recipe: Recipe) -> str:
    """What the folder of a run is called where nothing else is said."""
    parts = [recipe.data.title, recipe.objective.name, f"seed{recipe.training.seed}"]
    if recipe.data.kind == "bags":
        parts.insert(1, recipe.network.name)
        if recipe.data.folds:
            parts.append(f"fold{recipe.data.fold}")
    return "-".join(parts)
