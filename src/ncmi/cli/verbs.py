"""The verbs of the command line. None imports torch before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ncmi.options import NCMIOptions, ObjectiveOptions, objective_names
from ncmi.recipes import Backbone, Data, Recipe, Training
from ncmi.reproduction import Experiment, Scale

COMMAND: list[str] = []
"""The command line as it was given, for the report."""
IMPORTS: list[str] = []
"""Modules that register objectives or backbones of the user's own (``--imports``)."""


def compare(
    data: Data,
    *,
    out: Path | None = None,
    seeds: int = 5,
    objectives: tuple[str, ...] = (),
    workers: int = 0,
    resume: bool = False,
    objective: ObjectiveOptions = NCMIOptions(),
    backbone: Backbone = Backbone(),
    training: Training = Training(),
) -> None:
    """Which loss trains the better classifier? All losses × several seeds, a table and report.html.

    Args:
        data: the data set: digits, wine, breast_cancer, iris, a path, or a name below the data folder.
        out: folder of the comparison; by default runs/compare-DATA.
        seeds: number of seeds; each has its own split, the same for all losses.
        objectives: names of the losses to compare; by default all.
        workers: runs side by side, one thread each; 0 for one a processor.
        resume: go on with an earlier comparison of the same options; finished runs are kept.
        objective: options of the objective that --objective names (by default ncmi); the others take their defaults.
        backbone: the network, the same for all.
        training: the training, the same for all.
    """
    from ncmi.cli.output import Counter, say
    from ncmi.comparison import Plan, compare, objective_entries
    from ncmi.reports import print_table, read_comparison, write_csv, write_report

    plan = Plan(
        objective_entries(Recipe(data, backbone, objective, training), objectives or objective_names()),
        tuple(range(training.seed, training.seed + seeds)),
        workers,
        tuple(IMPORTS),
    )
    folder = out or Path("runs") / f"compare-{Path(data.name).stem}"
    with Counter(f"{len(plan.entries)} losses × {seeds} seeds", len(plan.runs())) as counter:
        compare(plan, folder, resume=resume, command=" ".join(COMMAND), on_run=counter.advance)
    record = read_comparison(folder)
    print_table(record)
    write_csv(record, folder / "table.csv")
    say(f"report: {write_report(folder)}   table: {folder / 'table.csv'}")


def train(
    data: Data,
    *,
    out: Path | None = None,
    objective: ObjectiveOptions = NCMIOptions(),
    backbone: Backbone = Backbone(),
    training: Training = Training(),
) -> None:
    """Train one classifier into a run folder.

    Args:
        data: the data set: digits, wine, breast_cancer, iris, a path, or a name below the data folder.
        out: the run folder; by default runs/DATA-OBJECTIVE-seedSEED.
        objective: options of the objective that --objective names (by default ncmi).
        backbone: the network.
        training: the training.
    """
    folder = out or Path("runs") / f"{Path(data.name).stem}-{objective.name}-seed{training.seed}"
    _train(Recipe(data, backbone, objective, training), folder, resume=False)


def resume(run: Path) -> None:
    """Go on with a run that was stopped; on a CPU the result is the same, bit by bit, as without the stop.

    Args:
        run: the run folder.
    """
    from ncmi.training import RunFolder

    _train(RunFolder.open(run).recipe(), run, resume=True)


def _train(recipe: Recipe, folder: Path, *, resume: bool) -> None:
    from ncmi.cli.output import EpochLog, print_readouts, say
    from ncmi.errors import Interrupted
    from ncmi.training import train

    with EpochLog() as log:
        try:
            results = train(recipe, folder, resume=resume, on_epoch=log.show)
        except Interrupted as stopped:
            raise Interrupted(f"{stopped}; go on with: ncmi resume {folder}") from None
    print_readouts(results)
    say(f"run folder: {folder}")


def evaluate(run: Path, *, on: str | None = None, ood: tuple[str, ...] = (), json: Path | None = None) -> None:
    """Judge a run by its head, centroid comparison, linear probe and nearest neighbours; how far to trust it.

    Args:
        run: the run folder, finished.
        on: other labelled data to judge it on, by name or path; by default the run's own validation and test parts.
        ood: foreign data, by names or paths, that it should know to be unknown: told from the run's test part by the
            distance to the nearest centroid and by other scores. Kept in the run folder for the report.
        json: file to write the figures to.
    """
    from ncmi.cli.output import print_foreign, print_readouts, say
    from ncmi.evaluation import evaluate_run
    from ncmi.files import write_json
    from ncmi.kept_evaluation import keep_calibration, keep_foreign

    results = evaluate_run(run, on, ood)
    print_readouts(results)
    if ood:
        print_foreign(results["ood"])
    if json is not None:
        write_json(json, results)
        say(f"written: {json}")
    try:
        added = keep_calibration(run, results) if on is None else None
        kept = [keep_foreign(run, name, found) for name, found in results.get("ood", {}).items()]
    except OSError as error:  # another's folder may be read only
        say(f"not kept in {run} ({error.strerror}): the report will not show it")
        return
    if added is not None:
        say(f"calibration added: {added}")
    for path in kept:
        say(f"written: {path}")


def predict(
    run: Path,
    inputs: Path,
    *,
    out: Path = Path("predictions.csv"),
    readout: Literal["auto", "head", "cc", "lp"] = "auto",
    calibrated: bool = False,
    overwrite: bool = False,
) -> None:
    """Predict new data with a run: CSV with the class, its probability, distance, and all classes' probabilities.

    Args:
        run: the run folder, finished.
        inputs: table, .npz or folder of images like the training data; labels in it are ignored.
        out: the CSV to write.
        readout: how to decide; by default the objective's own first one (head; cc for NCMI with anchors that stay).
        calibrated: probabilities by the temperature that was fitted to the run's validation part.
        overwrite: replace an existing file.
    """
    from ncmi.cli.output import say
    from ncmi.evaluation import predict_file

    rows = predict_file(run, inputs, out, readout=readout, calibrated=calibrated, overwrite=overwrite)
    say(f"{rows} predictions: {out}")


def measure(
    file: Path,
    *,
    values: Literal["auto", "logits", "probabilities", "log_probabilities", "features"] = "auto",
    temperature: float = 0.5,
    labels: Path | None = None,
    json: Path | None = None,
) -> None:
    """CMI, Γ and NCMI of any model's saved outputs [N, D] with their labels [N].

    Args:
        file: .npz, .safetensors or .pt with arrays called logits, probabilities, log_probabilities, features, outputs
            or x, and labels or y; or an .npy of outputs.
        values: what the outputs are; by default told by the array's name, else by its values.
        temperature: of the map from features to distributions (features only).
        labels: file of the labels, where they are not in FILE: .npy, .txt, or any of the others.
        json: file to write the figures to.
    """
    from ncmi.cli.output import print_information, say
    from ncmi.evaluation import measure_file
    from ncmi.files import write_json

    measured = measure_file(file, values, temperature, labels)
    print_information(measured)
    if json is not None:
        write_json(json, measured)
        say(f"written: {json}")


def report(folder: Path, *, out: Path | None = None) -> None:
    """Write report.html of a run or of a comparison, from its folder alone.

    Args:
        folder: a run folder or a comparison's folder.
        out: the file to write; by default report.html in the folder.
    """
    from ncmi.cli.output import say
    from ncmi.reports import write_report

    say(f"report: {write_report(folder, out)}")


def recipes() -> None:
    """The recipes of published and of our own experiments, with what to expect of them."""
    from ncmi.cli.output import say
    from ncmi.recipes import describe_recipe, recipe_names

    for name in recipe_names():
        say(f"{name}\n    {describe_recipe(name)}")
    say("\nfor example: ncmi train --recipe cifar100.small --objective focal --training.seed 1")


def reproduce(
    experiment: Experiment,
    *,
    scale: Scale = "small",
    out: Path | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    only: tuple[str, ...] = (),
    networks: tuple[str, ...] = (),
    workers: int = 0,
    data_dir: str | None = None,
) -> None:
    """Make a table or figure of the paper from runs of your own, with paired differences. The same command goes on.

    Args:
        experiment: table1, table5, figure2, figure3, figure4 or figure5.
        scale: small (16×16 pixels, minutes a run on one CPU core), released (the authors' script), paper (its text).
        out: folder; runs in it are shared by all experiments of a scale. By default runs/reproduce-SCALE.
        seeds: number of seeds.
        first_seed: the first of them.
        only: names of the entries to make, e.g. cross_entropy focal ncmi-released; by default all of the experiment.
        networks: backbones; by default the paper's, or resnet_small.
        workers: runs side by side, one thread each; 0 for one a processor. On a GPU several share it.
        data_dir: folder that holds CIFAR-100; by default the environment variable NCMI_DATA.
    """
    from ncmi.cli.output import Counter, say
    from ncmi.errors import Interrupted
    from ncmi.reports import print_reproduction, write_reproduction
    from ncmi.reproduction import plan_experiment, reproduce

    groups = plan_experiment(
        experiment,
        scale,
        seeds=range(first_seed, first_seed + seeds),
        only=only,
        networks=networks,
        workers=workers,
        data_dir=data_dir,
    )
    folder = out or Path("runs") / f"reproduce-{scale}"
    with Counter(f"{experiment}, scale {scale}", sum(len(group.plan.runs()) for group in groups)) as counter:
        try:
            made = reproduce(experiment, scale, groups, folder, command=" ".join(COMMAND), on_run=counter.advance)
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command goes on") from None
    print_reproduction(made)
    say(f"report: {write_reproduction(made)}")


def doctor() -> None:
    """What is installed, what works here: versions, devices, optional packages, data, and a check of the loss."""
    from ncmi.cli.doctor import examine
    from ncmi.cli.output import print_findings

    if not print_findings(examine()):
        raise ValueError("something that ncmi needs does not work: see the lines marked ✗")
