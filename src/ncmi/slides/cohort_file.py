"""What a run was trained on, in its folder: a stopped run goes on with the same slides in the same parts, or not."""

from __future__ import annotations

from typing import Any

from ncmi.data.dataset import listing
from ncmi.slides.cohort import Cohort
from ncmi.slides.splits import CohortSplit
from ncmi.training.run_folder import RunFolder, RunFolderError

NAME = "cohort.json"


def describe_cohort(cohort: Cohort, split: CohortSplit) -> dict[str, Any]:
    """Width of the features, classes, and of each slide its patient, class and part."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    names = {index: part for part, indices in parts.items() for index in indices.tolist()}
    slides = {}
    for index, slide in enumerate(cohort.slides):
        label = None if slide.label is None else cohort.class_names[slide.label]
        slides[slide.name] = [slide.patient, label, names.get(index)]
    return {"feature_dim": cohort.feature_dim, "class_names": list(cohort.class_names), "slides": slides}


def check_same_cohort(folder: RunFolder, cohort: Cohort, split: CohortSplit) -> None:
    """Compare a cohort with the one that a stopped run began with.

    Raises:
        RunFolderError: naming what differs, and the cure.
    """
    earlier, now = folder.read(NAME), describe_cohort(cohort, split)
    told = [
        f"{what} {earlier.get(name)}, now {now[name]}"
        for name, what in (("feature_dim", "features were as wide as"), ("class_names", "classes were"))
        if earlier.get(name) != now[name]
    ]
    slides = earlier.get("slides", {})
    groups = {
        "gone": sorted(set(slides) - set(now["slides"])),
        "new": sorted(set(now["slides"]) - set(slides)),
        "of another patient, class or part": sorted(
            name for name, about in now["slides"].items() if name in slides and slides[name] != about
        ),
    }
    told += [f"{len(names)} slides are {how} ({listing(names, 3)})" for how, names in groups.items() if names]
    if told:
        raise RunFolderError(
            f"{folder.path}: features or labels have changed since this run was begun: {'; '.join(told)}. Bring them "
            "back as they were, or train anew into another folder"
        )
