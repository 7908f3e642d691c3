"""The verbs of the command line, the same for every kind of data. None imports torch before it runs."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from ncmi.cli import output
from ncmi.cli.output import say
from ncmi.errors import Interrupted
from ncmi.files import check_regular
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions, objective_names
from ncmi.recipes import (
    BagNetwork,
    Data,
    Network,
    Recipe,
    Training,
    default_training,
    describe_recipe,
    recipe_names,
    recipe_to_dict,
)
from ncmi.recipes.names import BASELINE, run_name
from ncmi.training import comparison, reproduction
from ncmi.training.launch import check_verb, find_launch, place_of_process
from ncmi.training.schema import MISTAKES, Record, write_record
from ncmi.training.search import SweepMetric

COMMAND: list[str] = []
"""The command line as it was given, for the report."""
IMPORTS: list[str] = []
"""Modules that register objectives or networks of the user's own (``--imports``)."""
DRY_RUN = False
"""Whether only what would be done is said (``--dry-run``)."""


def compare(
    data: Data,
    *,
    out: Path | None = None,
    seeds: int | None = None,
    objectives: tuple[str, ...] = (),
    networks: tuple[str, ...] = (),
    workers: int = 0,
    tune: bool = False,
    resume: bool = False,
    objective: ObjectiveOptions = NCMIOptions(),
    network: Network | BagNetwork = Network(),
    training: Training = Training(),
) -> None:
    """Which loss trains the better classifier? Losses × seeds on the same splits, a table and report.html.

    Args:
        data: digits, wine, breast_cancer, iris; a table, images or a folder of them, features of slides (with
            --data.labels); or a name below the data folder. --data.folds 10 cross-validates slides by patient.
        out: folder of the comparison; by default runs/compare-DATA.
        seeds: number of seeds, each with its own split, the same for all losses; by default 5, of slides 3.
        objectives: names of the losses; by default all, of slides cross_entropy and ncmi.
        networks: names of the networks; by default the one of --network.name, of slides abmil transmil aem asmil.
        workers: runs side by side, one thread each; 0 for one a processor. Of several GPUs each run takes one, in turn.
        tune: search the learning rate of each run by its own validation part, from 1/256 to 4 times the usual one or
            further: the same rule for every loss, and 8 or 9 times as many runs.
        resume: go on with an earlier comparison of the same options; finished runs are kept.
        objective: options of the objective that --objective names (by default ncmi); the others take their defaults.
        network: the network, the same for all.
        training: the training, the same for all.
    """
    from ncmi.report import print_table, write_csv, write_report

    plan = comparison.usual_plan(
        Recipe(data, network, objective, training),
        seeds=seeds,
        objectives=objectives,
        networks=networks,
        workers=workers,
        imports=IMPORTS,
        tune=tune,
    )
    folder = out or Path("runs") / f"compare-{data.title}"
    runs, title = len(plan.runs()), plan.in_words()
    command = " ".join(COMMAND)
    if DRY_RUN:
        comparison.record_of(folder, plan.describe(command), resume)
        kept = "runs to keep" if tune else "runs"
        say(f"{title} = {runs} {kept}, {comparison.processors_of(plan)} side by side, into {folder}")
        _say_plans([plan])
        return
    with output.RunCounter(title, runs) as counter:
        try:
            comparison.compare(
                plan,
                folder,
                resume=resume,
                command=command,
                on_run=counter.advance,
                on_data=output.say_on_the_way,
            )
        except Interrupted as stopped:
            go_on = f"go on with the same command and --resume ({folder})" if folder.exists() else "nothing is written"
            raise Interrupted(f"stopped; {go_on}", stopped.signal_number) from None
    print_table(folder)
    say(f"report: {write_report(folder)}   table: {write_csv(folder, folder / 'table.csv')}")
    say(f"a run of it in Python: ncmi.load({str(folder / plan.runs()[-1][0])!r})")


def _say_plans(plans: Sequence[comparison.Plan]) -> None:
    """What would be trained, and whether it can be: all data is read, and every network and objective is built."""
    from ncmi.training.rehearsal import describe, rehearse

    contents: dict[str, dict[str, Any]] = {}
    for plan in plans:
        recipe = plan.entries[0].recipe
        for line in describe(recipe, plan.imports):
            say(line)
        for entry in plan.entries:
            say(f"  {entry.label}: {in_brief(entry.recipe)}")
        contents |= {f"{entry}": recipe_to_dict(recipe) for entry, recipe in plan.runs()}
    faults = rehearse(contents, plans[0].imports, plans[0].tune)
    if faults:
        raise ValueError(comparison.told(faults, len(contents)))
    say("nothing was written; without --dry-run it begins")


def in_brief(recipe: Recipe) -> str:
    """Network, objective and training of a recipe in a line: what is not at its default."""
    default = Recipe(recipe.data)
    parts = [f"network {recipe.network.name}", f"objective {recipe.objective.name}"]
    for section, own in (("training", default.training), ("network", default.network)):
        values = getattr(recipe, section)
        parts += [
            f"{field.name.replace('_', '-')} {getattr(values, field.name)}"
            for field in fields(values)
            if field.name not in ("name", "alternation", "augmentation")
            and getattr(values, field.name) != getattr(own, field.name, None)
        ]
    return ", ".join(parts)


def train(
    data: Data,
    *,
    out: Path | None = None,
    resume: Literal["never", "auto"] = "never",
    objective: ObjectiveOptions = NCMIOptions(),
    network: Network | BagNetwork = Network(),
    training: Training = Training(),
) -> None:
    """Train one classifier into a run folder; under torchrun or srun by all their processes together.

    Args:
        data: digits, wine, breast_cancer, iris; a table, images or a folder of them, features of slides (with
            --data.labels); or a name below the data folder.
        out: the run folder; by default runs/DATA-OBJECTIVE-seedSEED, of slides runs/DATA-NETWORK-OBJECTIVE-seedSEED.
        resume: auto goes on with the run that the folder holds, by the same command and on any number of processes, and
            begins one where there is none: for torchrun --max-restarts, and jobs that are queued again.
        objective: options of the objective that --objective names (by default ncmi).
        network: the network.
        training: the training.
    """
    recipe = Recipe(data, network, objective, training)
    if DRY_RUN:
        from ncmi.training.run_folder import RunFolder

        if place_of_process()[0] > 0:
            return
        folder = out or Path("runs") / run_name(recipe)
        if resume == "never" or not RunFolder(folder).exists:
            RunFolder.check_free(folder)
        say(f"1 run into {folder}")
        _say_plans([comparison.Plan((comparison.Entry("run", "run", recipe),), (training.seed,), 1, tuple(IMPORTS))])
        return
    _train(recipe, out or Path("runs") / run_name(recipe), resume="auto" if resume == "auto" else False)


def resume(run: Path, *, epochs: int | None = None, devices: int | None = None) -> None:
    """Go on with a run that was stopped; on a CPU the result is the same, bit by bit, as without the stop.

    Args:
        run: the run folder.
        epochs: train a stopped or finished run to so many epochs in all. The learning rate's schedule is drawn anew
            over them, so that the result is not that of a run of so many epochs from the start; the earlier recipe and
            results are kept as recipe-before.json and results-before.json.
        devices: processes on this machine, one device each; by default as many as began the run, and under torchrun or
            srun theirs.
    """
    from ncmi.training.run_folder import RunFolder

    launch = find_launch()
    if epochs is not None:
        from ncmi.training.extension import extend

        if launch is not None and launch.world_size > 1:
            raise ValueError(
                f"--epochs {epochs}: one process makes a run longer: give it without {launch.launcher}, stop it after "
                f"a step, and go on by {launch.launcher} without --epochs"
            )
        say(extend(run, epochs))
    folder = RunFolder.open(run)
    recipe = folder.recipe()
    if devices is None:
        devices = 1 if launch is not None else folder.environment().get("processes", 1)
    _train(replace(recipe, training=replace(recipe.training, devices=devices)), run, resume=True)


def _train(recipe: Recipe, folder: Path, *, resume: bool | Literal["auto"]) -> None:
    from ncmi.training.run import train
    from ncmi.training.run_folder import RunFolder, removed_if_nothing_came
    from ncmi.training.schema import memorized_in_words

    go_on = f"ncmi resume {shlex.quote(str(folder))}"
    show = output.EpochLog().show
    try:
        with removed_if_nothing_came(folder):
            results = train(recipe, folder, resume=resume, on_epoch=show, on_stage=output.say_on_the_way)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; go on with: {go_on}", stopped.signal_number) from None
    output.print_results(results)
    if results.selection == "last":
        for note in memorized_in_words([[row.validation_loss for row in RunFolder(folder).metrics()]]):
            say(note)
    page = f"its page: ncmi report {shlex.quote(str(folder))}"
    say(f"run folder: {folder}   {page}   misclassified: {folder / MISTAKES}")
    say(f"in Python: ncmi.load({str(folder)!r})")


def evaluate(
    run: Path,
    *,
    on: str | None = None,
    labels: str | None = None,
    slide_table: str | None = None,
    bad: Literal["error", "skip"] | None = None,
    ood: tuple[str, ...] = (),
    json: Path | None = None,
) -> None:
    """Judge a run by its head, centroid comparison, linear probe and nearest neighbors; how far to trust it.

    Args:
        run: the run folder, finished.
        on: other labeled data to judge it on, by name or path; by default the run's own validation and test parts.
        labels: CSV of the labels of --on, where that is features of slides.
        slide_table: CSV of its slides and their patients, where --labels has one row a patient.
        bad: what of --on cannot be used: stop, or leave it out and say so; by default as for the run's own data.
        ood: out-of-distribution data, by names or paths: how well it is told from the run's test part by the distance
            to the nearest centroid and by other scores. Kept in the run folder for the report.
        json: file to write the figures to.
    """
    from ncmi.training.evaluation import evaluate_run, keep_ood

    evaluation = evaluate_run(run, on, ood, labels, bad, slide_table)
    output.print_evaluation(evaluation)
    _write_json(json, evaluation)
    try:
        for path in keep_ood(run, evaluation):
            say(f"written: {path}")
    except OSError as error:  # another's folder may be read only
        say(f"not kept in {run} ({error.strerror}): the report will not show it")


def _write_json(path: Path | None, record: Record) -> None:
    if path is not None:
        write_record(path, record)
        say(f"written: {path}")


def predict(
    run: Path,
    inputs: Path,
    *,
    out: Path = Path("predictions.csv"),
    readout: Literal["auto", "head", "cc", "lp", "knn"] = "auto",
    calibrated: bool = False,
    bad: Literal["mark", "skip", "error"] = "mark",
    attention: Path | None = None,
    slide_table: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Predict new data with a run: CSV with the class, its probability, distance, and all classes' probabilities.

    Args:
        run: the run folder, finished.
        inputs: table, .npz, folder of images or features of slides, like the training data; labels in it are ignored.
        out: the CSV to write; - for standard output.
        readout: how to decide; by default the objective's own first one (head; cc for NCMI with anchors that stay).
        calibrated: probabilities by the temperature that was fitted to the run's validation part.
        bad: what cannot be predicted: a row that says why, no row, or stop.
        attention: folder for each slide's attention (.npz).
        slide_table: CSV with the columns slide and patient; by default patients are known by barcodes (TCGA and so on).
            Patients with several slides have a table of their own, OUT-patients.
        overwrite: replace an existing file.
    """
    from ncmi.training.prediction import predict

    check_regular(inputs)
    predicted = predict(
        run,
        inputs,
        out,
        readout=readout,
        calibrated=calibrated,
        bad=bad,
        attention=attention,
        slide_table=slide_table,
        overwrite=overwrite,
    )
    output.print_predicted(predicted, out, marked=bad == "mark")


def export(
    run: Path,
    *,
    to: Literal["onnx", "torch"] = "onnx",
    out: Path | None = None,
    readout: Literal["auto", "head", "cc", "lp"] = "auto",
    calibrated: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a run as one file that runs without ncmi: preprocessing, network, read-out and class names.

    It is tried, and compared with the run, before it is put in its place.

    Args:
        run: the run folder, finished.
        to: ONNX (of a table one input a column), or a program of torch.export.
        out: the file; by default model.onnx or model.pt2 in the run folder.
        readout: how to decide; by default the objective's own first one (head; cc for NCMI with anchors that stay).
        calibrated: probabilities by the temperature that was fitted to the run's validation part.
        overwrite: replace an existing file.
    """
    from ncmi.training.export import ENDINGS, export_run
    from ncmi.training.prediction import Predictor

    path = run / f"model{ENDINGS[to]}" if out is None else out
    exported = export_run(Predictor(run), to, path, readout=readout, calibrated=calibrated, overwrite=overwrite)
    output.print_exported(exported)


def measure(
    file: Path,
    *,
    values: Literal["auto", "logits", "probabilities", "log_probabilities", "features"] = "auto",
    temperature: float = 0.5,
    feature_length: Literal["own", "common"] | float = "own",
    labels: Path | None = None,
    json: Path | None = None,
) -> None:
    """CMI, Γ and NCMI of any model's saved outputs [N, D] with their labels [N].

    Args:
        file: .npz, .safetensors or .pt with arrays called logits, probabilities, log_probabilities, features, outputs
            or x, and labels or y; or an .npy of outputs.
        values: what the outputs are; by default told by the array's name, else by its values.
        temperature, feature_length: of the map from features to distributions (features only): as of the NCMI loss,
            and for features of a model trained with it those of its recipe.json.
        labels: file of the labels, where they are not in FILE: .npy, .txt, or any of the others.
        json: file to write the figures to.
    """
    from ncmi.training.evaluation import measure_file

    for path in (file, labels):
        if path is not None:
            check_regular(path)
    measured = measure_file(file, values, temperature, labels, feature_length)
    output.print_measured(measured)
    _write_json(json, measured)


def report(folder: Path, *, out: Path | None = None, tiles: Path | None = None, slides: Path | None = None) -> None:
    """Write report.html of a run, a comparison or a reproduction, from its folder alone.

    Args:
        folder: a run folder, or that of a comparison or reproduction.
        out: the file to write; by default report.html in the folder.
        tiles: folder that `ncmi slides tile` wrote, for thumbnails under the heat maps.
        slides: folder of the slides, for pictures of the patches that count most.
    """
    from ncmi.report import write_report

    say(f"report: {write_report(folder, out, tiles=tiles, slides=slides)}")


def recipes() -> None:
    """The recipes of published and of our own experiments, with what to expect of them."""
    for name in recipe_names():
        say(f"{name}\n    {describe_recipe(name)}")
    say("\nfor example: ncmi train --recipe cifar100.small --objective focal --training.seed 1")


def reproduce(
    experiment: Literal[reproduction.Experiment, "table4"],
    *,
    scale: reproduction.Scale = "small",
    out: Path | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    only: tuple[str, ...] = (),
    networks: tuple[str, ...] = (),
    workers: int = 0,
    data_dir: str | None = None,
    imagenet: Path | None = None,
    camelyon17: Path | None = None,
    camelyon17_labels: Path | None = None,
    bracs: Path | None = None,
    bracs_labels: Path | None = None,
    epochs: int = 0,
    data: reproduction.Table3Data = reproduction.TABLE3_DATA,
    training: Training = default_training("bags"),
) -> None:
    """Make a table or figure of the paper from runs of your own, with paired differences. The same command goes on.

    Args:
        experiment: table1, table2 (ImageNet), table3 (slides), table4 (cost: see ncmi bench), table5, figure2, figure3,
            figure4 or figure5.
        scale: small (16×16 pixels, of table2 64×64, minutes a run on a CPU), released (the authors' script), short
            (table2: the recipe imagenet.short), paper (its text).
        out: folder; runs in it are shared by all experiments of a scale. By default runs/reproduce-SCALE.
        seeds: number of seeds.
        first_seed: the first of them.
        only: names of the entries to make, e.g. cross_entropy focal ncmi-released; by default all of the experiment.
        networks: networks; by default the paper's, or resnet_small.
        workers: runs side by side, one thread each; 0 for one a processor. Of several GPUs each run takes one, in turn;
            one GPU they share. Under torchrun table2 has all processes in each run, one run after the other.
        data_dir: folder that holds CIFAR-100; by default the environment variable NCMI_DATA.
        imagenet: table2: folder with ImageNet's train and val, or other images.
        camelyon17: table3: features of CAMELYON-17's slides; tested on centers 3 and 4.
        camelyon17_labels: table3: CSV with slide, patient, center, label; or CAMELYON-17's stages.csv as it is, or
            labels by number (0 … 3) and patients by the slides' names.
        bracs: table3: features of BRACS' slides; its own split, three classes.
        bracs_labels: table3: CSV with slide, patient, split, label; or BRACS' own table with its seven lesions.
        epochs: table2, table3: passes over the training part; 0 for the recipe's, of slides 50 (published: 50 to 100).
        data: table3: what is chosen of the data; labels, classes and parts are the cohorts'.
        training: table3: the training; by default as published.
    """
    from ncmi.report import print_table, write_report

    check_verb(f"reproduce {experiment}")
    launch = find_launch()
    first = launch is None or launch.rank == 0
    if launch is not None and launch.world_size > 1 and workers:
        raise ValueError(f"--workers {workers}: by {launch.launcher} all processes make each run: leave it out")
    folder = out or Path("runs") / f"reproduce-{scale}"
    if experiment == "table4":
        _reproduce_cost(scale, folder / experiment, networks, only)
        return
    cohorts = {"camelyon17": (camelyon17, camelyon17_labels), "bracs": (bracs, bracs_labels)}
    with tempfile.TemporaryDirectory() as aside:
        groups = reproduction.plan_experiment(
            experiment,
            scale,
            seeds=range(first_seed, first_seed + seeds),
            only=only,
            networks=networks,
            workers=workers,
            imports=IMPORTS,
            data_dir=data_dir,
            imagenet_folder=imagenet,
            cohorts={name: (features, labels) for name, (features, labels) in cohorts.items() if features is not None},
            epochs=epochs,
            training=None if training == default_training("bags") else training,
            data=data,
            # where nothing is to be written, tables are brought into their form elsewhere
            tables=Path(aside) if DRY_RUN else folder / "labels",
        )
        runs = sum(len(group.plan.runs()) for group in groups)
        if DRY_RUN:
            if not first:
                return
            say(f"{experiment}, scale {scale}: {runs} runs in {len(groups)} groups, into {folder / experiment}")
            _say_plans([group.plan for group in groups])
            return
    with output.RunCounter(f"{experiment}, scale {scale}", runs) if first else nullcontext() as counter:
        try:
            folder = reproduction.reproduce(
                experiment,
                scale,
                groups,
                folder,
                command=" ".join(COMMAND),
                on_run=lambda name, results: counter.advance(name, results) if counter else None,
            )
        except Interrupted as stopped:
            raise Interrupted("stopped; the same command goes on", stopped.signal_number) from None
    if not first:
        return
    print_table(folder)
    say(f"report: {write_report(folder)}")


def _reproduce_cost(scale: str, folder: Path, networks: Sequence[str], only: Sequence[str]) -> None:
    """Table IV: time and memory of a step, beside the paper's of an epoch."""
    from ncmi.training.cost import CostSetting

    small = scale == "small"
    for network in networks or ("resnet50",):
        setting = CostSetting(network, batch=16 if small else 256, rounds=10 if small else 30)
        if DRY_RUN:
            say(f"table4, {network}: {setting}, into {folder}")
        else:
            _write_json(folder / f"{network}.json", _measured_cost(setting, only, "auto", 1 if small else None))


def sweep(
    data: Data,
    *,
    out: Path | None = None,
    trials: int = 20,
    search: tuple[str, ...] = (),
    metric: SweepMetric | None = None,
    prune: bool = False,
    workers: int = 1,
    objective: ObjectiveOptions = NCMIOptions(),
    network: Network | BagNetwork = Network(),
    training: Training = Training(),
) -> None:
    """Search for better options by the validation part alone; the same command goes on, also on other machines.

    Args:
        data: as for train.
        out: folder of the search, which other machines may share; by default runs/sweep-DATA-OBJECTIVE.
        trials: of the whole search, each a run folder in it; the first one is the recipe as it is.
        search: options to search, as NAME, NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C, such as
            training.weight-decay=1e-5:1e-3:log; by default the learning rate from 1/256 to 4 times the recipe's, and
            the loss's own option.
        metric: of the validation part; by default accuracy, of slides macro AUC.
        prune: end trials early that fall behind at the same epoch.
        workers: processes side by side, one thread each; 1 for this one alone, 0 for one a processor.
        objective: options of the objective that --objective names (by default ncmi).
        network: the network.
        training: the training.
    """
    from ncmi.training.search import default_dimensions, parse_dimension, run_sweep, sweep_record

    recipe = Recipe(data, network, objective, training)
    chosen = tuple(parse_dimension(text, recipe) for text in search)
    record = sweep_record(recipe, chosen or default_dimensions(recipe), metric, prune)
    folder = out or Path("runs") / f"sweep-{data.title}-{objective.name}"
    for dimension in record.dimensions:
        output.say_on_the_way(f"searched: {dimension}")
    if DRY_RUN:
        say(f"{trials} trials into {folder}, judged by {record.metric} of the validation part")
        _say_plans(
            [comparison.Plan((comparison.Entry("trial", "trial", recipe),), (training.seed,), 1, tuple(IMPORTS))]
        )
        return
    try:
        best = run_sweep(
            record, folder, trials, workers=workers, imports=IMPORTS, on_trial=lambda trial: output.print_trial(trial)
        )
    except Interrupted as stopped:
        raise Interrupted("stopped; the same command goes on", stopped.signal_number) from None
    output.print_trial(best, "best: ")
    again = f"ncmi train --config {shlex.quote(str(folder / 'best.json'))} --out {shlex.quote(str(folder / 'best'))}"
    say(f"table: {folder / 'trials.csv'}   to train it: {again}")


def bench(
    what: Literal["cost"],
    *,
    network: str = "resnet50",
    classes: int = 1000,
    batch: int = 256,
    image_size: int = 224,
    objectives: tuple[str, ...] = (),
    rounds: int = 20,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    compile: bool = False,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    memory: bool = True,
    out: Path | None = None,
) -> None:
    """What losses cost: head and loss by themselves, a whole step, peak memory; they take turns, with 95 % intervals.

    Args:
        what: cost.
        network: a network of images, with random weights and images.
        classes: C.
        batch: images of a step.
        image_size: side in pixels.
        objectives: names of losses, or of forms as for reproduce --only; by default cross_entropy focal supcon and each
            form of NCMI. Cross-entropy is always among them.
        rounds: repetitions, in each of which every loss has its turn.
        precision: as of a training.
        compile: torch.compile of the network.
        accelerator: by default CUDA where there is a device.
        threads: CPU threads; with 1, processor time is read, which other work on the machine does not count in.
        memory: measure the peak of memory as well.
        out: JSON file to write the figures to.
    """
    from ncmi.training.cost import CostSetting

    setting = CostSetting(network, classes, batch, image_size, rounds, precision, compile, memory)
    _write_json(out, _measured_cost(setting, objectives, accelerator, threads))


def _measured_cost(setting: Any, objectives: Sequence[str], accelerator: str, threads: int | None) -> Record:
    """Costs, measured and printed."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # before torch comes: its profiler tells of itself
    import torch

    from ncmi.report.published import published_cost
    from ncmi.training.cost import measure_costs

    names = tuple(objectives) or reproduction.COSTS
    try:
        forms = {name: reproduction.variant(name) for name in dict.fromkeys((BASELINE, *names))}
    except KeyError as error:
        known = ", ".join((*objective_names(), *reproduction.VARIANTS))
        raise ValueError(f"--objectives: {error.args[0]}: use {known}") from None
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("--accelerator cuda: there is no CUDA device here: use cpu, or auto")
    device = torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        record = measure_costs(setting, forms, device, output.say_on_the_way)
    finally:
        torch.set_num_threads(before)
    output.print_costs(record, {cost.name: published_cost(cost.objective) for cost in record.objectives})
    return record


def doctor() -> None:
    """What is installed, what works here: versions, devices, optional packages, data, and a check of the loss."""
    from ncmi.cli.doctor import tell

    tell()


VERBS: dict[str, Callable[..., None]] = {
    "compare": compare,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "measure": measure,
    "report": report,
    "reproduce": reproduce,
    "sweep": sweep,
    "bench": bench,
    "recipes": recipes,
    "doctor": doctor,
}
