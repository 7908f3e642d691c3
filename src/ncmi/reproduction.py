"""The paper's tables and figures as plans of runs, and making them: one folder, finished runs are kept and shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ncmi.comparison import LABELS, ComparisonError, Entry, Plan, compare_many
from ncmi.files import write_json
from ncmi.options import Alternation, NCMIOptions, ObjectiveOptions, objective_options
from ncmi.recipes import Augmentation, Recipe, cifar100

Experiment = Literal["table1", "table5", "figure2", "figure3", "figure4", "figure5"]
Scale = Literal["paper", "released", "small"]

EXPERIMENTS: dict[str, str] = {
    "table1": "Table I: test accuracy on CIFAR-100",
    "table5": "Table V: normalised sigmoid and centring",
    "figure2": "Figure 2: NCMI against accuracy over networks",
    "figure3": "Figure 3: test accuracy by batch size",
    "figure4": "Figure 4: CMI, Γ and NCMI over training",
    "figure5": "Figure 5: clusters of features",
}
_BASELINES = ("cross_entropy", "label_smoothing", "anticlass", "squentropy", "square", "poly", "supcon", "focal")
_RELEASED = cifar100.RELEASED_NCMI
_POWER = NCMIOptions(anchor_scale=10.0, separation_power=-4.0)
_VARIANTS: dict[str, tuple[str, ObjectiveOptions]] = {
    "ncmi-paper": ("NCMI (paper)", cifar100.PAPER_NCMI),
    "ncmi-released": ("NCMI (released)", _RELEASED),
    "ncmi-turned": ("NCMI (released, KL(P‖Q))", replace(_RELEASED, separation_direction="sample_to_centroid")),
    "ncmi-power-fixed": ("NCMI (p = −4, fixed)", replace(_POWER, centroids="fixed")),
    "ncmi-power-learned": ("NCMI (p = −4, learned)", _POWER),
    "ncmi": ("NCMI (default)", NCMIOptions()),
    "ncmi-nsf": ("NSF, not centred", replace(_RELEASED, centre="none")),
    "ncmi-softmax-centred": ("softmax, centred", replace(_RELEASED, distribution="softmax")),
    "ncmi-softmax": ("softmax, not centred", replace(_RELEASED, distribution="softmax", centre="none")),
}
_ENTRIES = {
    "table1": (
        *_BASELINES,
        "ncmi-paper",
        "ncmi-released",
        "ncmi-turned",
        "ncmi-power-fixed",
        "ncmi-power-learned",
        "ncmi",
    ),
    "table5": ("cross_entropy", "ncmi-released", "ncmi-nsf", "ncmi-softmax-centred", "ncmi-softmax"),
    "figure3": ("cross_entropy", "ncmi-released", "ncmi-power-fixed"),
    "figure4": ("cross_entropy", "ncmi-released", "ncmi-power-fixed", "ncmi-power-learned", "ncmi"),
    "figure5": ("cross_entropy", "ncmi-released", "ncmi-power-fixed", "ncmi-power-learned", "ncmi"),
}
# the published one; those of the others at scale small (0.4) were tried too: see docs/results.md
_SMALL_RATE_P1 = 0.1
_NETWORKS = {"paper": ("resnet18", "resnet34", "resnet50", "resnet101"), "small": ("resnet_small",)}
_BATCH_SIZES = {"paper": (32, 64, 128, 256, 512, 1024), "small": (32, 64, 128, 256, 512)}
_RECIPES: dict[str, Callable[..., Recipe]] = {
    "paper": cifar100.paper,
    "released": cifar100.released,
    "small": cifar100.small,
}


@dataclass(frozen=True)
class Group:
    """Entries that are compared with each other: one network, or one batch size.

    Attributes:
        name: of its folder.
        title: what tables call it.
        plan: its runs.
    """

    name: str
    title: str
    plan: Plan


def plan_experiment(
    experiment: Experiment,
    scale: Scale,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    networks: Sequence[str] = (),
    workers: int = 0,
    data_dir: str | None = None,
) -> tuple[Group, ...]:
    """The runs of a table or figure.

    Args:
        experiment: which.
        scale: "paper" (as published), "released" (as the authors' script), "small" (CPU).
        seeds: training seeds.
        only: names of the entries to make, which an unknown one lists; by default all.
        networks: backbones; by default the paper's (scale paper, released) or the small one. Not for figure 2.
        workers: runs side by side; 0 for one a processor.
        data_dir: where CIFAR-100 lies; by default NCMI_DATA.

    Raises:
        ComparisonError: for an unknown entry, or a choice of entries or networks for figure 2.
    """
    size = "small" if scale == "small" else "paper"

    def recipe(name: str, network: str) -> Recipe:
        _, options = _variant(name)
        made = _RECIPES[scale](options)
        # contrastive learning lives on strong augmentation, and is published with it
        own: dict[str, Any] = {"augmentation": Augmentation.supcon()} if name == "supcon" else {}
        if name == "ncmi-paper":
            own = {"alternation": Alternation("phases")}
        if scale == "small" and isinstance(options, NCMIOptions) and options.separation_power == 1:
            own["learning_rate"] = _SMALL_RATE_P1
        # trajectories are those of a validation part
        on_all = made.data.train_on_all and experiment != "figure4"
        return replace(
            made,
            data=replace(made.data, data_dir=data_dir, train_on_all=on_all),
            backbone=replace(made.backbone, name=network),
            training=replace(made.training, **own),
        )

    def plan(entries: Sequence[Entry]) -> Plan:
        return Plan(tuple(entries), tuple(seeds), workers, runs_folder="../../runs")

    if experiment == "figure2":
        if only or networks:
            raise ComparisonError("figure2 has networks and entries of its own: leave --only and --networks out")
        return (Group("networks", "networks", plan(_correlation_entries(scale, recipe))),)
    chosen = tuple(only) or _ENTRIES[experiment]
    unknown = [name for name in chosen if name not in _ENTRIES[experiment] and name not in _VARIANTS]
    if unknown:
        raise ComparisonError(f"unknown entry {unknown[0]!r}: {experiment} has {', '.join(_ENTRIES[experiment])}")
    # without the baseline there is nothing to compare with
    chosen = chosen if "cross_entropy" in chosen else ("cross_entropy", *chosen)
    groups = []
    backbones = tuple(networks) or (_NETWORKS[size] if experiment == "table1" else _NETWORKS[size][:1])
    for network in backbones:
        if experiment == "figure3":
            for batch in _BATCH_SIZES[size]:
                group = f"{network}-batch{batch}"
                entries = [
                    Entry(f"{group}-{name}", _variant(name)[0], _with_batch(recipe(name, network), batch))
                    for name in chosen
                ]
                groups.append(Group(group, f"{network}, batch {batch}", plan(entries)))
        else:
            suffix = "-validated" if experiment == "figure4" and scale != "small" else ""
            entries = [Entry(f"{network}-{name}{suffix}", _variant(name)[0], recipe(name, network)) for name in chosen]
            groups.append(Group(network, network, plan(entries)))
    return tuple(groups)


def reproduce(
    experiment: Experiment,
    scale: Scale,
    groups: Sequence[Group],
    path: str | Path,
    *,
    command: str | None = None,
    on_run: Callable[[str, dict[str, Any]], None] = lambda name, results: None,
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
        KeyboardInterrupt: on Ctrl-C; the same call goes on.
    """
    folder = Path(path) / experiment
    folder.mkdir(parents=True, exist_ok=True)
    plans = [(group.plan, folder / group.name) for group in groups]
    write_json(
        folder / "reproduction.json",
        {
            "format": 1,
            "experiment": experiment,
            "title": EXPERIMENTS[experiment],
            "scale": scale,
            "groups": [{"name": group.name, "title": group.title} for group in groups],
        },
    )
    compare_many(plans, resume=None, command=command, on_run=on_run)
    return folder


def _variant(name: str) -> tuple[str, ObjectiveOptions]:
    if name in _VARIANTS:
        return _VARIANTS[name]
    return LABELS[name], objective_options(name)()


def _with_batch(recipe: Recipe, batch: int) -> Recipe:
    """Another batch size, with the learning rate in proportion."""
    training = recipe.training
    rate = training.learning_rate * batch / training.batch_size
    return replace(recipe, training=replace(training, batch_size=batch, learning_rate=rate))


def _correlation_entries(scale: Scale, recipe: Callable[[str, str], Recipe]) -> list[Entry]:
    """Cross-entropy networks of different size and training length."""
    base = recipe("cross_entropy", "resnet_small" if scale == "small" else "resnet18")
    entries = []
    if scale == "small":
        for width, depth in ((8, 1), (16, 1), (24, 1), (32, 1)):
            for epochs in (3, 6, 12):
                entries.append(
                    Entry(
                        f"ce-width{width}-depth{depth}-epochs{epochs}",
                        f"width {width}, {epochs} epochs",
                        replace(
                            base,
                            backbone=replace(base.backbone, width=width, depth=depth),
                            training=replace(base.training, epochs=epochs),
                        ),
                    )
                )
        return entries
    for network in ("resnet9", "resnet18", "resnet34", "resnet50", "resnet101"):
        for share in (0.25, 1.0):
            training = base.training
            epochs = round(share * training.epochs)
            milestones = tuple(share * milestone for milestone in training.milestones)
            entries.append(
                Entry(
                    f"ce-{network}-epochs{epochs}",
                    f"{network}, {epochs} epochs",
                    replace(
                        base,
                        backbone=replace(base.backbone, name=network),
                        training=replace(training, epochs=epochs, milestones=milestones),
                    ),
                )
            )
    return entries
