"""The verbs of ``ncmi slides``, from features on. None imports torch before it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ncmi.cli import verbs
from ncmi.cli.slide_features import embed, simulate, tile
from ncmi.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes import BagNetwork, SlideData, SlideRecipe, Training, slide_training

if TYPE_CHECKING:
    from ncmi.slides.compare import SlidePlan

Sampling = Literal["all", "balanced"]


def check(data: SlideData, *, seed: int = 0) -> None:
    """Read labels and features as a training would: classes, patients and bags of each part, and all that is wrong.

    Args:
        data: features, labels and split.
        seed: of the split.
    """
    from ncmi.cli.slide_output import print_cohort
    from ncmi.slides.cohort import load_cohort
    from ncmi.slides.splits import split_cohort

    cohort = load_cohort(data)
    print_cohort(cohort, split_cohort(cohort, data, seed))


def train(
    data: SlideData,
    *,
    out: Path | None = None,
    network: BagNetwork = BagNetwork(),
    objective: ObjectiveOptions = NCMIOptions(),
    training: Training = slide_training(),
    sampling: Sampling = "all",
) -> None:
    """Train one slide classifier into a run folder.

    Args:
        data: features (folder or file), --data.labels CSV, and how they are split.
        out: the run folder; by default runs/DATA-NETWORK-OBJECTIVE-seedSEED.
        network: abmil, transmil, aem, asmil, mean or max, by --network.name.
        objective: options of the objective that --objective names (by default ncmi).
        training: the training.
        sampling: each slide once an epoch, or as many draws with each class alike.
    """
    name = f"{data.name}-{network.name}-{objective.name}-seed{training.seed}"
    if data.folds:
        name += f"-fold{data.fold}"
    recipe = SlideRecipe(data, network, objective, training, sampling)
    _train(recipe, out or Path("runs") / name, resume=False)


def resume(run: Path) -> None:
    """Go on with a run that was stopped; on a CPU the result is the same, bit by bit, as without the stop.

    Args:
        run: the run folder.
    """
    from ncmi.training.run_folder import RunFolder

    _train(RunFolder.open(run).slide_recipe(), run, resume=True)


def _train(recipe: SlideRecipe, folder: Path, *, resume: bool) -> None:
    from ncmi.cli.output import say
    from ncmi.cli.slide_output import SlideEpochLog, print_slide_results
    from ncmi.errors import Interrupted
    from ncmi.slides.run import train_slides

    try:
        results = train_slides(recipe, folder, resume=resume, on_epoch=SlideEpochLog().show)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; go on with: ncmi slides resume {folder}") from None
    print_slide_results(results)
    say(f"run folder: {folder}   its page: ncmi slides report {folder}")


def compare(
    data: SlideData,
    *,
    out: Path | None = None,
    networks: tuple[str, ...] = ("abmil", "transmil", "aem", "asmil"),
    objectives: tuple[str, ...] = ("cross_entropy", "ncmi"),
    seeds: int = 3,
    workers: int = 0,
    resume: bool = False,
    network: BagNetwork = BagNetwork(),
    objective: ObjectiveOptions = NCMIOptions(),
    training: Training = slide_training(),
    sampling: Sampling = "all",
) -> None:
    """Networks × objectives × seeds on one cohort, in every fold where the data is split into folds; table and report.

    Args:
        data: features (folder or file), --data.labels CSV, and how they are split; --data.folds 10 for 10-fold
            cross-validation by patient, repeated for every seed.
        out: folder of the comparison; by default runs/compare-DATA.
        networks: abmil, transmil, aem, asmil, mean, max.
        objectives: names of the losses.
        seeds: number of seeds, or of repeats of the cross-validation.
        workers: runs side by side, one thread each; 0 for one a processor.
        resume: go on with an earlier comparison of the same options; finished runs are kept.
        network: options of the networks, but for the name.
        objective: options of the objective that --objective names (by default ncmi); the others take their defaults.
        training: the training, the same for all.
        sampling: each slide once an epoch, or as many draws with each class alike.
    """
    from ncmi.slides.compare import SlidePlan, slide_entries
    from ncmi.slides.simulation import is_simulated

    recipe = SlideRecipe(data, network, objective, training, sampling)
    plan = SlidePlan(
        slide_entries(recipe, networks, objectives),
        tuple(range(training.seed, training.seed + seeds)),
        workers,
        tuple(verbs.IMPORTS),
        title=data.name,
        simulation=is_simulated(data.features),
    )
    _compare(plan, out or Path("runs") / f"compare-{data.name}", resume)


def table3(
    *,
    camelyon17: Path | None = None,
    camelyon17_labels: Path | None = None,
    bracs: Path | None = None,
    bracs_labels: Path | None = None,
    out: Path = Path("runs/table3"),
    networks: tuple[str, ...] = ("abmil", "transmil", "aem", "asmil"),
    objectives: tuple[str, ...] = ("cross_entropy", "ncmi"),
    seeds: int = 3,
    epochs: int = 0,
    workers: int = 0,
    resume: bool = False,
) -> None:
    """The paper's Table III: CAMELYON-17 and BRACS × four networks × cross-entropy and NCMI (head, CC, LP).

    Args:
        camelyon17: features of CAMELYON-17's slides; tested on centres 3 and 4.
        camelyon17_labels: CSV with slide, patient, center, label.
        bracs: features of BRACS' slides; its own split, three classes.
        bracs_labels: CSV with slide, patient, split, coarse label.
        out: folder; one comparison for each of the data sets in it.
        networks: of the table.
        objectives: of the table.
        seeds: number of seeds.
        epochs: passes over the training part; 0 for 50 (published: 50 to 100).
        workers: runs side by side, one thread each; 0 for one a processor.
        resume: go on; finished runs are kept.
    """
    from ncmi.slides.table3 import table3_plans

    plans = table3_plans(
        camelyon17=None if camelyon17 is None else (camelyon17, camelyon17_labels),
        bracs=None if bracs is None else (bracs, bracs_labels),
        networks=networks,
        objectives=objectives,
        seeds=range(seeds),
        epochs=epochs,
        workers=workers,
        imports=verbs.IMPORTS,
    )
    for name, plan in plans.items():
        _compare(plan, out / name, resume and (out / name / "comparison.json").exists())


def _compare(plan: SlidePlan, folder: Path, resume: bool) -> None:
    from ncmi.cli.output import Counter, say
    from ncmi.cli.slide_output import slide_line
    from ncmi.reports.slides import print_slides_table, read_slide_comparison, write_slides_report
    from ncmi.slides.compare import compare_slides

    runs = plan.all_runs()
    title = f"{len(plan.entries)} entries × {len(plan.seeds)} seeds"
    if plan.folds != (None,):
        title += f" × {len(plan.folds)} folds"
    with Counter(title, len(runs), slide_line) as counter:
        compare_slides(plan, folder, resume=resume, command=" ".join(verbs.COMMAND), on_run=counter.advance)
    print_slides_table(read_slide_comparison(folder))
    say(f"report: {write_slides_report(folder)}")


def predict(
    run: Path,
    features: Path,
    *,
    out: Path = Path("predictions.csv"),
    readout: Literal["auto", "head", "cc", "lp"] = "auto",
    attention: Path | None = None,
    bad: Literal["error", "skip"] = "error",
    overwrite: bool = False,
) -> None:
    """Predict new slides with a run: CSV with the class, all probabilities, and the distance to each centroid.

    Args:
        run: the run folder, finished.
        features: features of the new slides, by the encoder of the training.
        out: the CSV to write.
        readout: how to decide; by default the objective's own first one.
        attention: folder for each slide's attention (.npz).
        bad: stop at slides that cannot be used, or leave them out and list them.
        overwrite: replace an existing file.
    """
    from ncmi.cli.output import say
    from ncmi.slides.predict import predict_slides

    rows, skipped = predict_slides(
        run, features, out, readout=readout, bad=bad, attention=attention, overwrite=overwrite
    )
    for name, reason in skipped:
        say(f"left out: {name}: {reason}")
    say(f"{rows} predictions: {out}" + (f", {len(skipped)} slides left out" if skipped else ""))


def report(folder: Path, *, out: Path | None = None, tiles: Path | None = None, slides: Path | None = None) -> None:
    """Write report.html of a run or of a comparison of slide classifiers.

    Args:
        folder: a run folder or a comparison's folder.
        out: the file to write; by default report.html in the folder.
        tiles: folder that `ncmi slides tile` wrote, for thumbnails under the heat maps.
        slides: folder of the slides, for pictures of the patches that count most.
    """
    from ncmi.cli.output import say
    from ncmi.reports.slides import write_slides_report

    say(f"report: {write_slides_report(folder, out=out, tiles=tiles, slides=slides)}")


VERBS: dict[str, Callable[..., None]] = {
    "tile": tile,
    "embed": embed,
    "check": check,
    "train": train,
    "resume": resume,
    "compare": compare,
    "table3": table3,
    "simulate": simulate,
    "predict": predict,
    "report": report,
}
TYPED = ("train", "compare")
"""Verbs whose objective's options depend on ``--objective``."""
