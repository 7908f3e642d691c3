"""The paper's tables and figures as lists of comparisons, and making them: finished runs are kept and shared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions, objective_options
from ncmi.recipes import Augmentation, BagData, Recipe, Training, cifar100, default_training, imagenet
from ncmi.recipes.names import BASELINE, network_label
from ncmi.training.comparison import ComparisonError, Entry, OnRun, Plan, compare_many, entries_of, with_network
from ncmi.training.schema import GroupRecord, ReproductionRecord, write_record

Experiment = Literal["table1", "table2", "table3", "table5", "figure2", "figure3", "figure4", "figure5"]
Scale = Literal["paper", "released", "short", "small"]


@dataclass(frozen=True)
class Design:
    """What a table or figure compares.

    Attributes:
        title: of the page.
        entries: names of its variants, or of objectives with their defaults.
        networks: as published.
        small_networks: at scale small.
    """

    title: str
    entries: tuple[str, ...]
    networks: tuple[str, ...] = ("resnet18",)
    small_networks: tuple[str, ...] = ("resnet_small",)


_BASELINES = ("cross_entropy", "label_smoothing", "anticlass", "squentropy", "square", "poly", "supcon", "focal")
_POWERS = ("ncmi-power-fixed", "ncmi-power-learned", "ncmi")
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_BAG_NETWORKS = ("abmil", "transmil", "aem", "asmil")
EXPERIMENTS: dict[Experiment, Design] = {
    "table1": Design(
        "Table I: test accuracy on CIFAR-100",
        (*_BASELINES, "ncmi-paper", "ncmi-released", "ncmi-turned", *_POWERS),
        _RESNETS,
    ),
    "table2": Design(
        "Table II: top-1 accuracy on ImageNet",
        ("cross_entropy", "label_smoothing", "focal", "supcon", "ncmi-paper", "ncmi-released", "ncmi", "ncmi-smooth"),
        ("resnet50", "resnet101"),
        ("resnet18",),
    ),
    "table3": Design(
        "Table III: slides of CAMELYON-17 and BRACS", ("cross_entropy", "ncmi"), _BAG_NETWORKS, _BAG_NETWORKS
    ),
    "table5": Design(
        "Table V: normalized sigmoid and centering",
        ("cross_entropy", "ncmi-released", "ncmi-nsf", "ncmi-softmax-centered", "ncmi-softmax"),
    ),
    "figure2": Design(
        "Figure 2: NCMI against accuracy over networks", ("cross_entropy",), ("resnet9", *_RESNETS), ("resnet_small",)
    ),
    "figure3": Design("Figure 3: test accuracy by batch size", ("cross_entropy", "ncmi-released", "ncmi-power-fixed")),
    "figure4": Design("Figure 4: CMI, Γ and NCMI over training", ("cross_entropy", "ncmi-released", *_POWERS)),
    "figure5": Design("Figure 5: clusters of features", ("cross_entropy", "ncmi-released", *_POWERS)),
}
_RELEASED = cifar100.RELEASED_NCMI
_POWER = NCMIOptions(feature_length="own", anchor_scale=10.0, separation_power=-4.0)
VARIANTS: dict[str, tuple[str, ObjectiveOptions]] = {
    "ncmi-paper": ("NCMI (paper)", cifar100.PAPER_NCMI),
    "ncmi-released": ("NCMI (released)", _RELEASED),
    "ncmi-turned": ("NCMI (released, KL(P‖Q))", replace(_RELEASED, separation_direction="sample_to_centroid")),
    "ncmi-power-fixed": ("NCMI (p = −4, fixed)", replace(_POWER, centroids="fixed")),
    "ncmi-power-learned": ("NCMI (p = −4, learned)", _POWER),
    "ncmi": ("NCMI (default)", NCMIOptions()),
    "ncmi-smooth": ("NCMI (label smoothing)", NCMIOptions(label_smoothing=0.1)),
    "ncmi-common": ("NCMI (common length)", NCMIOptions(feature_length="common")),
    "ncmi-fixed": ("NCMI (fixed centroids)", NCMIOptions(centroids="fixed")),
    "ncmi-nsf": ("NSF, not centered", replace(_RELEASED, center="none")),
    "ncmi-softmax-centered": ("softmax, centered", replace(_RELEASED, distribution="softmax")),
    "ncmi-softmax": ("softmax, not centered", replace(_RELEASED, distribution="softmax", center="none")),
}
COSTS = ("cross_entropy", "focal", "supcon", "ncmi", "ncmi-common", "ncmi-fixed", "ncmi-paper", "ncmi-released")
"""What Table IV has: its losses, and each form of NCMI."""
# title and split of each cohort of slides
_COHORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "camelyon17": (
        "CAMELYON-17",
        {
            "label_column": "label",
            "classes": ("negative", "itc", "micro", "macro"),
            "holdout_column": "center",
            "holdout": ("3", "4"),
        },
    ),
    "bracs": (
        "BRACS",
        {
            "label_column": "label_coarse",
            "classes": ("BT", "AT", "MT"),
            "split_column": "split",
            "patient_overlap": "drop",
        },
    ),
}
# the published one; those of the others at scale small (0.4) were tried too: see docs/results.md
_SMALL_RATE_P1 = 0.1
_BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
_SMALL_BATCH_SIZES = _BATCH_SIZES[:-1]
_RECIPES: dict[str, Callable[..., Recipe]] = {
    "paper": cifar100.paper,
    "released": cifar100.released,
    "small": cifar100.small,
}
_IMAGENET_RECIPES: dict[str, Callable[..., Recipe]] = {
    "paper": imagenet.imagenet_paper,
    "short": imagenet.imagenet_short,
    "small": imagenet.imagenet_tiny,
}


@dataclass(frozen=True)
class Group:
    """Entries that are compared with each other: one network, one batch size, or one cohort of slides.

    Attributes:
        name: of its folder.
        title: what tables call it.
        plan: its runs.
    """

    name: str
    title: str
    plan: Plan


def scales_of(experiment: Experiment) -> tuple[str, ...]:
    """The scales that a table or figure can be made at."""
    return tuple(_IMAGENET_RECIPES if experiment == "table2" else _RECIPES)


@dataclass(frozen=True)
class Table3Data:
    """What may be chosen of Table III's data; labels, classes and parts are the cohorts' own.

    Attributes:
        bad: slides that cannot be used: "error", or "skip", which lists and counts them.
        validation_fraction: part of the slides outside the test part, where a cohort does not say which; by patient.
        split_seed: of that; by default the training seed.
        features_key, coords_key: names of the data sets in a features file; by default guessed.
        standardize: scale each feature by its mean and spread over the instances of the training part.
        train_instances: train on so many instances of a bag, drawn anew each time; 0 for all.
        cache_gigabytes: keep the cohort in memory where its features take no more than that.
        attention_slides: of so many test slides the attention is kept.
    """

    bad: Literal["error", "skip"] = BagData.bad
    validation_fraction: float = BagData.validation_fraction
    split_seed: int | None = BagData.split_seed
    features_key: str | None = BagData.features_key
    coords_key: str | None = BagData.coords_key
    standardize: bool = BagData.standardize
    train_instances: int = BagData.train_instances
    cache_gigabytes: float = BagData.cache_gigabytes
    attention_slides: int = BagData.attention_slides


TABLE3_DATA = Table3Data()


def plan_experiment(
    experiment: Experiment,
    scale: Scale,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    networks: Sequence[str] = (),
    workers: int = 0,
    imports: Sequence[str] = (),
    data_dir: str | None = None,
    imagenet_folder: str | Path | None = None,
    cohorts: Mapping[str, tuple[str | Path, str | Path | None]] | None = None,
    epochs: int = 0,
    training: Training | None = None,
    data: Table3Data = TABLE3_DATA,
    tables: Path | None = None,
) -> tuple[Group, ...]:
    """The runs of a table or figure.

    Args:
        experiment: which.
        scale: "paper" (as published), "released" (as the authors' script; not of table 2), "short" (of table 2: the
            public recipe of 16 epochs), "small" (CPU); alike for table 3.
        seeds: training seeds.
        only: names of the entries to make, which an unknown one lists, or of objectives; by default all of the
            experiment. Cross-entropy is always among them. Not for figure 2.
        networks: networks; by default the paper's (scale paper, released) or the small one. Not for figure 2.
        workers: runs side by side; 0 for one a processor.
        imports: modules that register objectives of the user's own.
        data_dir: where CIFAR-100 lies; by default NCMI_DATA.
        imagenet_folder: of table 2: ImageNet, or other images, as a folder with train and val.
        cohorts: of table 3: features and CSV of labels by "camelyon17", "bracs"; a simulation has a table of its own,
            and None will do.
        epochs: of table 2, and of table 3; 0 for the recipe's (slides: 50, or what ``training`` says; published: 50 to
            100).
        training: of table 3; by default as published.
        data: of table 3.
        tables: of table 3, a folder for tables of labels that are not in its columns; by default they must be.

    Raises:
        ComparisonError: for an unknown entry or network, a scale that the experiment does not have, a choice of entries
            or networks for figure 2, slides without labels, table 3 without slides, or table 2 without images.
    """
    design = EXPERIMENTS[experiment]
    if experiment == "figure2" and (only or networks):
        raise ComparisonError("figure2 has networks and entries of its own: leave --only and --networks out")
    if experiment != "table3" and (cohorts or training or data != TABLE3_DATA or (epochs and experiment != "table2")):
        raise ComparisonError(f"{experiment} has neither slides nor epochs to choose: leave them out, or make table3")
    if scale not in scales_of(experiment):
        raise ComparisonError(f"{experiment} has no scale {scale}: use --scale {', '.join(scales_of(experiment))}")
    if (experiment == "table2") != (imagenet_folder is not None):
        raise ComparisonError("table2, and no other, is made of ImageNet: give its folder (--imagenet DIR)")
    for name in only:
        try:
            variant(name)
        except KeyError:
            raise ComparisonError(f"unknown entry {name!r}: {experiment} has {', '.join(design.entries)}") from None
    names = tuple(only) or design.entries
    # without the baseline there is nothing to compare with
    names = names if BASELINE in names else (BASELINE, *names)
    networks = tuple(networks) or (design.small_networks if scale == "small" else design.networks)

    def recipe(name: str, network: str) -> Recipe:
        if experiment == "table2":
            made = _image_recipe(name, network, scale, _IMAGENET_RECIPES[scale], {"name": str(imagenet_folder)})
            return _with_training(made, epochs=epochs or made.training.epochs)
        # trajectories are those of a validation part
        changes = {"data_dir": data_dir} | ({"train_on_all": False} if experiment == "figure4" else {})
        return _image_recipe(name, network, scale, _RECIPES[scale], changes)

    def group(name: str, title: str, entries: Sequence[Entry], page: str = "") -> Group:
        plan = Plan(tuple(entries), tuple(seeds), workers, tuple(imports), page, runs_folder="../../runs")
        return Group(name, title, plan)

    if experiment == "table3":
        if not cohorts or not set(cohorts) <= set(_COHORTS):
            raise ComparisonError("nothing to make Table III of: give features of CAMELYON-17, of BRACS, or of both")
        halves = {
            cohort: _table3_half(cohort, *paths, names, networks, epochs, training, data, tables)
            for cohort, paths in cohorts.items()
        }
        return tuple(group(name, title, entries, f"Table III, {title}") for name, (title, entries) in halves.items())
    if experiment == "figure2":
        return (group("networks", "networks", _correlation_entries(scale, recipe(BASELINE, networks[0]), networks)),)
    groups = []
    for network in networks:
        title = network_label(network)
        if experiment == "figure3":
            for batch in _SMALL_BATCH_SIZES if scale == "small" else _BATCH_SIZES:
                prefix = f"{network}-batch{batch}"
                entries = [
                    Entry(f"{prefix}-{name}", variant(name)[0], _with_batch(recipe(name, network), batch))
                    for name in names
                ]
                groups.append(group(prefix, f"{title}, batch {batch}", entries))
        else:
            suffix = "-validated" if experiment == "figure4" and scale != "small" else ""
            prefix = "imagenet-" if experiment == "table2" else ""
            entries = [
                Entry(f"{prefix}{network}-{name}{suffix}", variant(name)[0], recipe(name, network)) for name in names
            ]
            groups.append(group(network, title, entries))
    return tuple(groups)


def reproduce(
    experiment: Experiment,
    scale: Scale,
    groups: Sequence[Group],
    path: str | Path,
    *,
    command: str | None = None,
    on_run: OnRun = lambda name, results: None,
) -> Path:
    """Make the runs of a table or figure that are not finished yet; the folder of the experiment.

    Args:
        experiment, scale: which; written down for the report.
        groups: from :func:`plan_experiment`.
        path: folder of all experiments of one scale. Runs lie in ``path/runs`` and are shared between experiments.
        command: the command line, for the report.
        on_run: called with each run's name and results.

    Raises:
        ComparisonError: if an earlier reproduction there used other recipes, or a run failed.
        Interrupted: on Ctrl-C, SIGTERM and SIGHUP; the same call goes on.
    """
    folder = Path(path) / experiment
    record = ReproductionRecord(
        experiment=experiment,
        title=EXPERIMENTS[experiment].title,
        scale=scale,
        groups=[GroupRecord(name=group.name, title=group.title) for group in groups],
    )

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / "reproduction.json", record)

    plans = [(group.plan, folder / group.name) for group in groups]
    compare_many(plans, resume=None, command=command, on_run=on_run, on_begin=begin)
    return folder


def cohort_data(cohort: str, features: str | Path, labels: str | Path) -> BagData:
    """Features and labels of a cohort of Table III, split as published (2601.02543).

    CAMELYON-17: four classes, test on centers 3 and 4, validation on 15 % of the other centers' patients. BRACS: three
    coarse classes, the official split; of patients on two sides the slides outside the test part are left out.

    Args:
        cohort: "camelyon17" or "bracs".
        features: of the slides, in any layout.
        labels: CSV with the columns slide_id, patient_id, center, label; or slide_id, patient_id, split, label_coarse.
    """
    return BagData(
        str(features),
        labels=str(labels),
        slide_column="slide_id",
        patient_column="patient_id",
        **_COHORTS[cohort][1],
    )


def _table3_half(
    cohort: str,
    features: str | Path,
    labels: str | Path | None,
    objectives: Sequence[str],
    networks: Sequence[str],
    epochs: int,
    training: Training | None,
    chosen: Table3Data,
    tables: Path | None,
) -> tuple[str, list[Entry]]:
    """Title and entries of one cohort. NCMI-LP and NCMI-CC are read-outs of one run."""
    from ncmi.data.bags.simulated import is_simulated, simulated_table

    title = _COHORTS[cohort][0]
    labels = labels or simulated_table(features)
    if labels is None:
        raise ComparisonError(f"{features}: no table of labels given: give the CSV of {title}'s slides")
    if tables is not None:
        from ncmi.data.bags.published import write_canonical

        labels = write_canonical(cohort, Path(labels), tables)
    training = training or default_training("bags")
    data = replace(cohort_data(cohort, features, labels), **asdict(chosen))
    recipe = Recipe(data, training=replace(training, epochs=epochs or training.epochs))
    entries = [replace(entry, name=f"{cohort}-{entry.name}") for entry in entries_of(recipe, objectives, networks)]
    return title + (" (simulation)" if is_simulated(features) else ""), entries


def variant(name: str) -> tuple[str, ObjectiveOptions]:
    """Label and options of an entry by its name, or of an objective at its defaults.

    Raises:
        KeyError: for an unknown name.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    options = objective_options(name)
    return options.label, options()


def _image_recipe(
    name: str, network: str, scale: Scale, make: Callable[..., Recipe], data: Mapping[str, Any]
) -> Recipe:
    """The scale's recipe with an entry's options, a network, and some fields of the data changed."""
    options = variant(name)[1]
    recipe = make(options)
    changes: dict[str, Any] = {}
    if name == "supcon":  # contrastive learning lives on strong augmentation, and is published with it
        changes["augmentation"] = Augmentation.supcon()
    if name == "ncmi-paper":
        changes["alternation"] = Alternation("phases")
    if scale == "small" and isinstance(options, NCMIOptions) and options.separation_power == 1:
        changes["learning_rate"] = _SMALL_RATE_P1
    recipe = replace(recipe, data=replace(recipe.data, **data))
    return with_network(_with_training(recipe, **changes), name=network)


def _with_training(recipe: Recipe, **fields: Any) -> Recipe:
    return replace(recipe, training=replace(recipe.training, **fields))


def _with_batch(recipe: Recipe, batch: int) -> Recipe:
    """Another batch size, with the learning rate in proportion."""
    rate = recipe.training.learning_rate * batch / recipe.training.batch_size
    return _with_training(recipe, batch_size=batch, learning_rate=rate)


def _correlation_entries(scale: Scale, recipe: Recipe, networks: Sequence[str]) -> list[Entry]:
    """Cross-entropy networks of different size and training length."""
    sizes: list[tuple[str, str, dict[str, Any]]]
    shares: tuple[float, ...]
    if scale == "small":
        sizes = [(f"width{width}-depth1", f"width {width}", {"width": width, "depth": 1}) for width in (8, 16, 24, 32)]
        shares = (0.25, 0.5, 1.0)
    else:
        sizes = [(network, network_label(network), {"name": network}) for network in networks]
        shares = (0.25, 1.0)
    entries = []
    for name, label, network in sizes:
        for share in shares:
            epochs = round(share * recipe.training.epochs)
            milestones = tuple(share * milestone for milestone in recipe.training.milestones)
            shorter = with_network(_with_training(recipe, epochs=epochs, milestones=milestones), **network)
            entries.append(Entry(f"ce-{name}-epochs{epochs}", f"{label}, {epochs} epochs", shorter))
    return entries
