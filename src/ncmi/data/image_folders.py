"""A folder of images, or a file of labels that names images → a data set: classes, parts, bad files, copies."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ncmi.data.columns import NONE, PART_NAMES, TEST, TRAIN, VALIDATION
from ncmi.data.dataset import Dataset
from ncmi.data.image_files import Decoder, open_images, unusable
from ncmi.data.image_layouts import ImageLayout, read_layout, settle_parts
from ncmi.data.images import decode_image
from ncmi.data.kinds import find_data
from ncmi.errors import listing, naming
from ncmi.recipes.data import ImageData


@dataclass(frozen=True)
class _Sample:
    path: Path
    name: str
    label: str
    part: int


def load_folder(
    path: Path,
    data: ImageData,
    *,
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
    decode: Decoder = decode_image,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Dataset:
    """Images in class folders, in folders of parts, or named by a file of labels; see ``image_layouts.read_layout``.

    They are brought to squares of ``data.image_size`` as :func:`ncmi.data.images.decode_image` says. Where
    ``data.test`` or ``data.validation`` name folders or files of labels of their own, those are these parts, and
    classes are matched by name. Images beyond ``data.memory_gigabytes`` are decoded as they are used.

    Args:
        path: folder, or file of labels.
        data: how it is to be read.
        channels: 1 for gray, 3 for RGB, ``None``: 1 if every image is gray, otherwise 3.
        class_names: of a run that is to be judged on these images, where they may lack some; parts are not looked at.
        decode: how files become pixels.
        progress: called with the number of files seen and of all.

    Returns:
        The data set, with what was left out and what was understood.

    Raises:
        ValueError: without classes; for files that are damaged or no images, empty class folders, or classes that the
            training part lacks, unless they are to be skipped. All are named.
    """
    images = None if data.images is None else Path(data.images).expanduser()
    if images is not None and not images.is_dir():
        raise ValueError(f"{images} is no folder: give the folder of the images (--data.images DIR)")
    layout = read_layout(path, images=images, label_column=data.label_column)
    notes, left_out = list(layout.notes), list(layout.bad)
    samples = _samples(layout, data, notes)
    for part, other in ((VALIDATION, data.validation), (TEST, data.test)):
        if other is not None:
            samples += _part_of_its_own(part, other, data, notes, left_out)
    if class_names is not None:
        samples = [replace(sample, part=TRAIN) for sample in samples]
    trained = set(class_names or (sample.label for sample in samples if sample.part == TRAIN))
    if unknown := [sample for sample in samples if sample.label not in trained]:
        names = sorted({sample.label for sample in unknown})
        lacking = "training part lacks" if class_names is None else "run does not know"
        why = f"of a class that the {lacking} ({listing(names)})"
        if data.bad == "error":
            raise ValueError(
                f"{len(unknown)} images are {why}; it has {listing(sorted(trained))}: name classes alike everywhere, "
                "or leave these out (--data.bad skip)"
            )
        left_out += [(sample.name, why) for sample in unknown]
        samples = [sample for sample in samples if sample.label in trained]
    size = (data.image_size, data.image_size)
    opened = open_images(
        [sample.path for sample in samples],
        size,
        channels,
        layout.root,
        memory_gigabytes=data.memory_gigabytes,
        bad="skip",
        decode=decode,
        progress=progress,
    )
    left_out += opened.left_out
    if left_out and data.bad == "error":
        raise ValueError(unusable(left_out))
    samples = [samples[index] for index in opened.kept]
    inputs, digests = opened.inputs, opened.digests
    classes = [name for name in layout.classes if any(s.label == name and s.part == TRAIN for s in samples)]
    classes = classes if class_names is None else list(class_names)
    if gone := [name for name in layout.classes if name in trained and name not in classes]:
        left_out += [(name, "a class without any image that can be used in the training part") for name in gone]
        kept = [index for index, sample in enumerate(samples) if sample.label in classes]
        samples = [samples[index] for index in kept]
        inputs, digests = inputs[torch.tensor(kept, dtype=torch.int64)], digests[kept]
    if len(classes) < 2:
        raise ValueError(f"only one class ({listing(classes)}): a classifier needs folders of at least two")
    number = {name: index for index, name in enumerate(classes)}
    parts = np.array([sample.part for sample in samples], np.int8)
    notes += _copies(samples, digests, drawn=not (parts != TRAIN).any())
    return Dataset(
        layout.root.resolve().name if path.is_dir() else path.stem,
        inputs,
        torch.tensor([number[sample.label] for sample in samples]),
        tuple(classes),
        "image",
        parts=parts if (parts != TRAIN).any() else None,
        left_out=tuple(left_out),
        notes=tuple(notes),
        names=tuple(sample.name for sample in samples),
        contents=_digest(samples, digests),
    )


def _samples(layout: ImageLayout, data: ImageData, notes: list[str]) -> list[_Sample]:
    """The samples of the main folder, less its own parts where others are given."""
    given = {part for part, other in ((VALIDATION, data.validation), (TEST, data.test)) if other is not None}
    if layout.parts is not None:
        layout.parts = [NONE if part in given else part for part in layout.parts]
    if TEST not in given:
        settle_parts(layout)
        notes[:] = layout.notes
    parts = [TRAIN] * len(layout.names) if layout.parts is None else layout.parts
    samples = [
        _Sample(layout.root / name, name, label, part)
        for name, label, part in zip(layout.names, layout.labels, parts, strict=True)
        if part != NONE
    ]
    if none := len(parts) - len(samples):
        notes.append(f"{none} images are in no part")
    if samples and not any(sample.part == TRAIN for sample in samples):
        raise ValueError("no image is in the training part: name the parts train, val and test")
    return samples


def _part_of_its_own(
    part: int, name: str, data: ImageData, notes: list[str], left_out: list[tuple[str, str]]
) -> list[_Sample]:
    path = find_data(name, data.data_dir)
    with naming(path):
        images = None if path.is_dir() or data.images is None else Path(data.images).expanduser()
        layout = read_layout(path, images=images, label_column=data.label_column)
        if layout.parts is not None:
            raise ValueError("this has parts of its own: give the folder of one part, whose subfolders are the classes")
    notes += [f"{PART_NAMES[part]} part {name}: {note}" for note in layout.notes]
    left_out += [(f"{path.name}/{file}", why) for file, why in layout.bad]
    return [
        _Sample(layout.root / file, f"{path.name}/{file}", label, part)
        for file, label in zip(layout.names, layout.labels, strict=True)
    ]


def _copies(samples: list[_Sample], digests: npt.NDArray[np.uint8], drawn: bool) -> list[str]:
    """What is to be said of files with the same bytes."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest.tobytes()].append(index)
    copies = [group for group in groups.values() if len(group) > 1]
    if not copies:
        return []
    notes = []
    labels = [group for group in copies if len({samples[index].label for index in group}) > 1]
    parts = [group for group in copies if len({samples[index].part for index in group}) > 1]
    for found, what in ((labels, "with two labels"), (parts, "in two parts")):
        if found:
            pair = listing([samples[index].name for index in found[0][:2]])
            notes.append(f"{len(found)} images occur {what} (the same bytes, such as {pair})")
    extra = sum(len(group) - 1 for group in copies)
    if drawn:
        pair = listing([samples[index].name for index in copies[0][:2]])
        notes.append(
            f"{extra} images are copies of others (the same bytes, such as {pair}): parts that are drawn may have one "
            "on two sides"
        )
    return notes


def _digest(samples: list[_Sample], digests: npt.NDArray[np.uint8]) -> str:
    """Hash of all files' names and bytes, in order."""
    whole = hashlib.blake2b(digest_size=16)
    for sample, digest in zip(samples, digests, strict=True):
        whole.update(sample.name.encode("utf-8", "surrogateescape") + b"\0")
        whole.update(digest.tobytes())
    return whole.hexdigest()
