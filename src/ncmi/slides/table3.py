"""Table III: four networks × cross-entropy and NCMI on CAMELYON-17 and BRACS, as plans of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ncmi.recipes.slides import NetworkName, SlideData, SlideRecipe, slide_training
from ncmi.slides.bag import BagError
from ncmi.slides.compare import SlideEntry, SlidePlan, slide_entries
from ncmi.slides.published import TITLES
from ncmi.slides.simulation import is_simulated, simulated_table
from ncmi.slides.simulation.options import CohortName

NETWORKS: tuple[NetworkName, ...] = ("abmil", "transmil", "aem", "asmil")
OBJECTIVES = ("cross_entropy", "ncmi")


def table3_data(cohort: CohortName, features: str | Path, labels: str | Path) -> SlideData:
    """Features and labels split as published.

    CAMELYON-17: four classes, test on centres 3 and 4, validation on 15 % of the other centres' patients. BRACS: three
    coarse classes, the official split; of patients on two sides the slides outside the test part are left out.

    Args:
        cohort: which.
        features: of the slides, in any layout.
        labels: CSV with the columns slide_id, patient_id, center, label; or slide_id, patient_id, split, label_coarse.
    """
    data = SlideData(str(features), str(labels), slide_column="slide_id", patient_column="patient_id")
    if cohort == "camelyon17":
        classes = ("negative", "itc", "micro", "macro")
        return replace(data, label_column="label", classes=classes, holdout_column="center", holdout=("3", "4"))
    coarse = ("BT", "AT", "MT")
    return replace(data, label_column="label_coarse", classes=coarse, split_column="split", patient_overlap="drop")


def table3_entries(
    cohort: CohortName,
    features: str | Path,
    labels: str | Path,
    *,
    networks: Sequence[str] = NETWORKS,
    objectives: Sequence[str] = OBJECTIVES,
    epochs: int = 0,
) -> tuple[SlideEntry, ...]:
    """The table's runs of one cohort: networks × objectives with the published training.

    That is AdamW 1e-4, weight decay 1e-5, one slide a step, cosine, 50 to 100 epochs: 50 here, with ``epochs=0``.
    NCMI-LP and NCMI-CC are read-outs of one run.

    Raises:
        ComparisonError: for an unknown network or objective.

    >>> [entry.name for entry in table3_entries("bracs", "features", "bracs.csv", networks=["abmil"])]
    ['abmil-cross_entropy', 'abmil-ncmi']
    """
    training = slide_training()
    training = replace(training, epochs=epochs or training.epochs)
    return slide_entries(SlideRecipe(table3_data(cohort, features, labels), training=training), networks, objectives)


def table3_plans(
    *,
    camelyon17: tuple[str | Path, str | Path | None] | None = None,
    bracs: tuple[str | Path, str | Path | None] | None = None,
    networks: Sequence[str] = NETWORKS,
    objectives: Sequence[str] = OBJECTIVES,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 0,
    workers: int = 0,
    imports: Sequence[str] = (),
) -> dict[CohortName, SlidePlan]:
    """The plans of the table's halves, each to be made by :func:`ncmi.slides.compare.compare_slides`.

    Args:
        camelyon17, bracs: (features, CSV of labels); a simulation has its own table, and None will do.
        networks, objectives, epochs: see :func:`table3_entries`.
        seeds: of training, and of CAMELYON-17's validation part.
        workers: runs side by side; 0 for one a processor.
        imports: modules that register objectives of the user's own.

    Raises:
        BagError: without any features, or without labels for real ones.
        ComparisonError: for an unknown network or objective.
    """
    given: dict[CohortName, tuple[str | Path, str | Path | None] | None] = {"camelyon17": camelyon17, "bracs": bracs}
    plans: dict[CohortName, SlidePlan] = {}
    for cohort, paths in given.items():
        if paths is None:
            continue
        features, labels = paths
        simulation = is_simulated(features)
        labels = labels or simulated_table(features)
        if labels is None:
            raise BagError(f"{features}: no table of labels given: give the CSV of {TITLES[cohort]}'s slides")
        entries = table3_entries(cohort, features, labels, networks=networks, objectives=objectives, epochs=epochs)
        title = f"Table III, {TITLES[cohort]}" + (" (simulation)" if simulation else "")
        plans[cohort] = SlidePlan(entries, tuple(seeds), workers, tuple(imports), title=title, simulation=simulation)
    if not plans:
        raise BagError("nothing to make Table III of: give features of CAMELYON-17, of BRACS, or of both")
    return plans
