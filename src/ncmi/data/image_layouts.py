"""How folders of images are laid out: which file is of which class and part. No image is opened, and no torch needed.

Classes are folders, or stand in a file of labels, a table with a column that names images; parts are folders too, or
stand in a column. See :func:`read_layout`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ncmi.data.columns import NONE, PART_NAMES, PART_WORDS, TEST, TRAIN, VALIDATION
from ncmi.data.image_labels import IMAGE_SUFFIXES, LABEL_FILE_SUFFIXES, ImageLabels, read_image_labels
from ncmi.errors import listing, naming, reason
from ncmi.files import is_system_file, visible

_CONTAINERS = ("images", "image", "imgs", "img", "data", "dataset", "jpegimages", "ilsvrc", "cls-loc")
"""Folders that may lie beside others and hold all the images."""
_FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "img", "split", "seg", "folder", "samples"}
"""Words that do not change what part a folder's name means."""
_COMPANION_SUFFIXES = (".txt", ".xml", ".json", ".csv", ".mat", ".npy")
"""Of files that say more about the image beside them."""
_IMAGENET = "LOC_{part}_solution.csv"
"""Beside ImageNet's folders: the labels of a part whose images lie in no class folders."""


@dataclass(eq=False)
class ImageLayout:
    """What lies in a folder or stands in a file of labels.

    Attributes:
        root: what names are relative to.
        names: of the samples' files, relative to ``root`` or absolute.
        labels: the class's name of each.
        parts: of each (0 training, 1 validation, 2 test, -1 none); None where nothing says it.
        classes: their names, in order.
        bad: (name, reason) of what looks like a sample and cannot be one.
        notes: a line each of what was understood and might have been understood otherwise.
    """

    root: Path
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    parts: list[int] | None = None
    classes: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Folder:
    """A folder with all that is visible below it; paths are relative to the root's."""

    path: str
    name: str
    folders: list[_Folder] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[str]:
        """Files directly in it that are called as images are."""
        return [name for name in self.files if _is_image_name(name)]

    def below(self) -> Iterator[tuple[_Folder, str]]:
        """All files in it and below, with the folder that each lies in, in order of name."""
        for name in self.files:
            yield self, name
        for folder in self.folders:
            yield from folder.below()

    def holds_images(self) -> bool:
        """Whether a file in it or below is called as images are."""
        return bool(self.images) or any(folder.holds_images() for folder in self.folders)

    @property
    def is_deep(self) -> bool:
        """Whether it holds several folders of images, and no image directly."""
        return not self.images and sum(folder.holds_images() for folder in self.folders) > 1

    def join(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


def read_layout(path: Path, *, images: Path | None = None, label_column: str | None = None) -> ImageLayout:
    """Which images a folder, or a file of labels, has, and of which class and part each is.

    - ``class/image``; folders below a class's are of that class;
    - ``train/class/image`` beside val or test, also below one folder called images, data or the like; and
      ``class/train/image``;
    - images without class folders and a file of labels (.csv, .tsv, .txt) that names them, also for one part alone, as
      ImageNet's and Tiny ImageNet's validation parts have.

    Args:
        path: folder, or file of labels.
        images: folder that the names in a file of labels are relative to; by default the file's own.
        label_column: of a file of labels.

    Raises:
        ValueError: where no class can be told, or one of several ways of reading would be a guess.
    """
    if path.is_file():
        layout = _of_labels(read_image_labels(path, images, label_column), path, images or path.parent)
    else:
        reader = _FolderReader(path, images, label_column)
        layout = reader.read()
        if reader.links:
            _count_once(layout, reader.links)
    return layout


def _count_once(layout: ImageLayout, links: set[str]) -> None:
    """Let each file that several names lead to by links count once, under its own name, else under the first.

    Names of other classes or parts than that one's are listed as bad, folder by folder.
    """
    real: dict[str, str] = {}

    def file_of(name: str) -> str:
        folder, _, file = name.rpartition("/")
        if folder not in real:
            real[folder] = os.path.realpath(layout.root / folder)
        return os.path.realpath(layout.root / name) if name in links else f"{real[folder]}/{file}"

    files = [file_of(name) for name in layout.names]
    top = os.path.realpath(layout.root)
    places: dict[str, int] = {}
    for place, (name, file) in enumerate(zip(layout.names, files, strict=True)):
        if file not in places or file == f"{top}/{name}":
            places[file] = place
    repeats: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    kept = []
    for place, file in enumerate(files):
        first = places[file]
        if first == place:
            kept.append(place)
            continue
        what = "class" if layout.labels[first] != layout.labels[place] else ""
        if layout.parts is not None and layout.parts[first] != layout.parts[place]:
            what = what or "part"
        folder, other = (layout.names[at].rpartition("/")[0] or "." for at in (place, first))
        pair = folder, other, what
        repeats[pair] += 1
        examples.setdefault(pair, layout.names[place])
    for (folder, other, what), count in repeats.items():
        if what:
            reason = f"links to {count} files of {other}/, such as {examples[folder, other, what]}, another {what}"
            layout.bad.append((f"{folder}/", reason))
        else:
            layout.notes.append(f"{count} images of {folder}/ are links to files of {other}/ and count once")
    before = set(layout.labels)
    layout.names = [layout.names[place] for place in kept]
    layout.labels = [layout.labels[place] for place in kept]
    if layout.parts is not None:
        layout.parts = [layout.parts[place] for place in kept]
    gone = before - set(layout.labels)
    layout.classes = [name for name in layout.classes if name not in gone]


class _FolderReader:
    def __init__(self, root: Path, images: Path | None, label_column: str | None) -> None:
        self.root, self.images, self.label_column = root, images, label_column
        self.layout = ImageLayout(root)
        self.links: set[str] = set()  # paths of files and folders
        self.top = self._scan(root, "", ())

    def read(self) -> ImageLayout:
        top = self._descend(self.top)
        parts = _part_folders(top)
        if parts:
            self._read_parts(top, parts)
        elif labels := self._whole_labels(top):
            layout = _of_labels(labels, labels.path, self.images or self.root, relative_to=self.root)
            layout.notes = [*self.layout.notes, *layout.notes]
            return layout
        else:
            self._read_classes(top)
        return self.layout

    def _note(self, text: str) -> None:
        self.layout.notes.append(text)

    def _scan(self, folder: Path, path: str, above: tuple[tuple[int, int], ...]) -> _Folder:
        """Everything visible below a folder. Links that lead in a circle end here."""
        found = _Folder(path, folder.name)
        try:
            status = folder.stat()
            key = (status.st_dev, status.st_ino)
            if key in above:
                self.layout.bad.append((path, "a link to a folder that it lies in"))
                return found
            with os.scandir(folder) as entries:
                visible = sorted((e for e in entries if not is_system_file(e.name)), key=lambda e: e.name)
        except OSError as error:
            if not path:
                raise ValueError(f"cannot be opened ({error.strerror})") from error
            self.layout.bad.append((path, f"cannot be opened ({error.strerror})"))
            return found
        for entry in visible:
            if entry.is_symlink():
                self.links.add(found.join(entry.name))
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself; looked at as a file, it says so
                is_folder = False
            if is_folder:
                found.folders.append(self._scan(folder / entry.name, found.join(entry.name), (*above, key)))
            else:
                found.files.append(entry.name)
        return found

    def _descend(self, folder: _Folder) -> _Folder:
        """The folder that has the parts or classes in it, where all lies in one folder in a folder."""
        while not _part_folders(folder):
            inner = [f for f in folder.folders if f.holds_images()]
            if len(inner) > 1:
                inner = [f for f in inner if _is_container(f) and (f.is_deep or _part_folders(self._silently(f)))]
            if len(inner) != 1 or not any(f.holds_images() for f in inner[0].folders) or inner[0].images:
                break
            folder = inner[0]
        if folder is not self.top:
            self._note(f"images are read from {folder.path}/, and from nothing beside it")
        return folder

    def _silently(self, folder: _Folder) -> _Folder:
        """Like :meth:`_descend`, of a folder that is only looked at."""
        while not _part_folders(folder) and len(folder.folders) == 1 and not folder.images:
            folder = folder.folders[0]
        return folder

    def _read_parts(self, top: _Folder, parts: dict[int, list[_Folder]]) -> None:
        self.layout.parts = []
        used = {id(folder) for folders in parts.values() for folder in folders}
        if others := [f.name for f in top.folders if id(f) not in used]:
            self._note(f"passed over beside the parts: folder {listing(others, 5)}")
        for part in (TRAIN, VALIDATION, TEST):
            for folder in parts.get(part, []):
                self._read_part(part, self._single(folder))
        rest = set(self.layout.labels) - set(self.layout.classes)
        self.layout.classes += in_order(rest)
        if TRAIN not in self.layout.parts:
            names = listing([f.path for f in parts[TRAIN]])
            raise ValueError(f"no images in {names}, the training part: put images into class folders there")

    def _single(self, folder: _Folder) -> _Folder:
        """The folder in a part's folder that holds its classes, such as seg_train/seg_train."""
        inner = [f for f in folder.folders if f.holds_images()]
        deeper = len(inner) == 1 and not folder.images and any(f.holds_images() for f in inner[0].folders)
        return self._single(inner[0]) if deeper and not inner[0].images else folder

    def _read_part(self, part: int, folder: _Folder) -> None:
        before = len(self.layout.names)
        flat = folder.images or (len(folder.folders) == 1 and folder.folders[0].name.lower() in _CONTAINERS)
        if not flat:
            self._add_classes(folder, needed=part == TRAIN)
        elif labels := self._labels_of(folder):
            self._add_labels(labels, folder)
        elif part == TRAIN:
            raise ValueError(
                f"{folder.path} holds images but no class folders, and no file of labels (.csv, .txt) names them: put "
                "the images into one folder a class, or a file with the columns file and label beside them"
            )
        else:
            count = sum(_is_image_name(name) for _, name in folder.below())
            self._note(f"{folder.path}: {count} images without labels are in no part")
        assert self.layout.parts is not None
        self.layout.parts += [part] * (len(self.layout.names) - before)

    def _read_classes(self, top: _Folder) -> None:
        folders = [f for f in top.folders if f.files or f.folders]
        if not top.folders:
            there = f"{len(top.images)} images but no folder" if top.images else "no folder"
            raise ValueError(
                f"{there} inside: expected one subfolder of images for each class, <folder>/<class>/<image>, or a file "
                "of labels (.csv) that names the images"
            )
        inner = [{f.name for f in folder.folders} for folder in folders]
        if len(folders) > 1 and not any(folder.images for folder in folders):
            if all(names and all(name.lower() in PART_WORDS for name in names) for names in inner):
                self._read_parts_in_classes(top)
                return
            if len(inner[0]) > 1 and all(names == inner[0] for names in inner):
                raise ValueError(
                    f"the folders {listing([f.name for f in folders], 5)} hold folders of the same names "
                    f"({listing(sorted(inner[0]), 5)}): give one of them, whose subfolders are the classes"
                )
        if general := [f.name for f in folders if f.holds_images() and _is_container(f)]:
            raise ValueError(
                f"the folder {listing(general)} is called like one of all images, no class: give the folder whose "
                "subfolders are the classes, or a file of labels (.csv) that names the images, with --data.images DIR "
                "where they do not lie beside it"
            )
        for name in top.images:
            self.layout.bad.append((top.join(name), "an image beside the class folders, not in one"))
        self._add_classes(top)

    def _read_parts_in_classes(self, top: _Folder) -> None:
        self._note("parts are the folders below each class (class/train/image)")
        self.layout.parts = []
        for folder in top.folders:
            for inner in folder.folders:
                before = len(self.layout.names)
                self._add_class(folder.name, inner)
                self.layout.parts += [PART_WORDS[inner.name.lower()]] * (len(self.layout.names) - before)
        self.layout.classes = [folder.name for folder in top.folders]

    def _add_classes(self, top: _Folder, needed: bool = True) -> None:
        named = top.holds_images()
        for folder in top.folders:
            if named and folder.files and not folder.holds_images():
                self.layout.bad.append((f"{folder.path}/", "a folder of no images beside the class folders"))
                continue
            before = len(self.layout.names)
            self._add_class(folder.name, folder)
            if len(self.layout.names) == before and needed:
                self.layout.bad.append((f"{folder.path}/", "an empty class folder"))
            elif len(self.layout.names) > before and folder.name not in self.layout.classes:
                self.layout.classes.append(folder.name)
        deep = [f.name for f in top.folders if (f.images and f.folders) or len(f.folders) > 1]
        if deep:
            self._note(f"folders below a class's folder are of that class (as in {listing(deep, 3)})")

    def _add_class(self, label: str, folder: _Folder) -> None:
        companions = 0
        for inner, name in folder.below():
            if _is_companion(name, inner, folder.name):
                companions += 1
            else:
                self.layout.names.append(inner.join(name))
                self.layout.labels.append(label)
        if companions:
            self._note(f"{folder.path}: {companions} files that describe the images beside them are passed over")

    def _add_labels(self, labels: ImageLabels, folder: _Folder) -> None:
        inside = f"{self.root / folder.path}/"
        for file, label, _ in labels.rows:
            if file.startswith(inside):
                self.layout.names.append(file[len(str(self.root)) + 1 :])
                self.layout.labels.append(label)
        if labels.bad:
            # the file may say the labels of other parts as well
            self._note(
                f"{folder.path}: {len(labels.bad)} rows of {labels.path.name} name no image that has a label there"
            )
        self._note(f"{folder.path}: {labels.note}")

    def _labels_of(self, folder: _Folder) -> ImageLabels | None:
        """The file of labels that names the images of a part without class folders."""
        words = re.split(r"[^a-z]+", folder.path.lower())
        part = next((word for word in reversed(words) if word in PART_WORDS), "")
        place = self.root / folder.path
        places = [place]
        while place != self.root:
            place = place.parent
            places.append(place)
        files = [file for place in places for file in _label_files(place)]
        above = self.root.resolve()
        names = [_IMAGENET.format(part=part)]
        files += [p / name for p in list(above.parents)[:3] for name in names if (p / name).is_file()]
        first = self.root / folder.path
        fitting = []
        for file in files:
            labels = self._read_labels(file, first)
            if labels.undecided:
                raise ValueError(f"{file.name}: {labels.undecided}")
            if any(row[0].startswith(f"{first}/") for row in labels.rows):
                fitting.append(labels)
        return self._the_one(fitting, [word for word, number in PART_WORDS.items() if number == PART_WORDS.get(part)])

    def _whole_labels(self, top: _Folder) -> ImageLabels | None:
        """The file of labels that names the images, unless their folders say the same."""
        files = _label_files(self.root / top.path) + ([] if top is self.top else _label_files(self.root))
        fitting = []
        for file in files:
            labels = self._read_labels(file, self.images or self.root / top.path)
            if labels.undecided and not labels.repeats_folders:
                if sum(folder.holds_images() for folder in top.folders) < 2 or top.images:
                    raise ValueError(f"{file.name}: {labels.undecided}")
                self._note(
                    f"classes are the folders; {file.name} names images as well, but of its columns none is called "
                    "like a label: give --data.label-column if it holds one"
                )
            elif labels.rows and not labels.repeats_folders:
                fitting.append(labels)
        return self._the_one(fitting, ())

    def _the_one(self, fitting: list[ImageLabels], words: Sequence[str]) -> ImageLabels | None:
        if len(fitting) > 1 and words:
            named = [f for f in fitting if set(re.split(r"[^a-z]+", f.path.stem.lower())) & set(words)]
            fitting = named or fitting
        if len(fitting) > 1:
            names = listing([str(f.path.relative_to(self.root)) for f in fitting])
            raise ValueError(f"{len(fitting)} files could give the labels ({names}): give one of them as the data")
        return fitting[0] if fitting else None

    def _read_labels(self, file: Path, images: Path) -> ImageLabels:
        with naming(file.name):
            return read_image_labels(file, images, self.label_column, guess=True)


def _of_labels(labels: ImageLabels, file: Path, root: Path, relative_to: Path | None = None) -> ImageLayout:
    base = f"{relative_to or root}/"
    layout = ImageLayout(relative_to or root, bad=labels.bad, notes=[labels.note])
    for image, label, _ in labels.rows:
        layout.names.append(image[len(base) :] if image.startswith(base) else image)
        layout.labels.append(label)
    if any(part is not None for _, _, part in labels.rows):
        layout.parts = [NONE if part is None else part for _, _, part in labels.rows]
    layout.classes = in_order(set(layout.labels))
    return layout


def in_order(classes: set[str]) -> list[str]:
    """Names of classes in order of value where all are whole numbers, else of code points."""
    numbers = all(re.fullmatch(r"[+-]?\d+", name) for name in classes)
    by_value: Callable[[str], tuple[int, str]] = lambda name: (int(name) if numbers else 0, name)  # noqa: E731
    return sorted(classes, key=by_value)


def settle_parts(layout: ImageLayout) -> None:
    """Make of given training and validation parts without test part training and test: validation is still to be drawn.

    For nobody may select on what is reported.

    Raises:
        ValueError: where there is no training part.
    """
    if layout.parts is None:
        return
    counts = Counter(layout.parts)
    if TRAIN not in counts:
        there = listing([PART_NAMES[part] for part in sorted(counts) if part != NONE])
        raise ValueError(f"only the parts {there}, but no training part: add one, or merge the parts into one folder")
    if VALIDATION in counts and TEST not in counts:
        layout.parts = [TEST if part == VALIDATION else part for part in layout.parts]
        layout.notes.append(
            f"no test part with labels: the given validation part ({counts[VALIDATION]} images) is the test part, and "
            "validation is drawn from training"
        )
    elif TEST not in counts and VALIDATION not in counts and NONE not in counts:
        layout.parts = None
        layout.notes.append("only a training part is there: the others are drawn from it")


def part_of_folder(name: str) -> int | None:
    """The part that a folder's name means, such as train, val-images or Test_Set; None for other names."""
    words = [word for word in re.split(r"[^a-z]+", re.sub(r"\d+$", "", name.lower())) if word]
    rest = [word for word in words if word not in _FILLERS] or words
    return PART_WORDS.get(rest[0]) if len(rest) == 1 else None


def _part_folders(top: _Folder) -> dict[int, list[_Folder]]:
    """Folders of parts, if these are parts; a class may be called train as well."""
    parts: dict[int, list[_Folder]] = {}
    for folder in top.folders:
        part = part_of_folder(folder.name)
        if part is not None and folder.holds_images():
            parts.setdefault(part, []).append(folder)
    if TRAIN not in parts:
        return {}
    alone = len(parts) == 1
    if alone and any(f.holds_images() for f in top.folders if f not in parts[TRAIN]):
        # one class of several, unless what lies in it are folders of classes and the others are none of them
        inner = [f for f in parts[TRAIN][0].folders if f.images]
        return parts if len(inner) > 1 and not parts[TRAIN][0].images else {}
    return parts


def _is_container(folder: _Folder) -> bool:
    words = [word for word in re.split(r"[^a-z]+", folder.name.lower()) if word]
    return folder.name.lower() in _CONTAINERS or bool(words and set(words) <= _FILLERS)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _is_companion(name: str, folder: _Folder, class_name: str) -> bool:
    """Whether a file says more about the images beside it: of the same name as one of them, or of the class's."""
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() not in _COMPANION_SUFFIXES:
        return False
    return stem.startswith(class_name) or any(f"{stem}{s}" in folder.files for s in _with_upper(IMAGE_SUFFIXES))


def _with_upper(suffixes: Sequence[str]) -> list[str]:
    return [*suffixes, *(suffix.upper() for suffix in suffixes)]


def _label_files(folder: Path) -> list[Path]:
    """Files in a folder that may give labels; what is to be handed in gives none."""
    try:
        files = [file for file in visible(folder) if file.suffix.lower() in LABEL_FILE_SUFFIXES and file.is_file()]
    except OSError as error:
        raise ValueError(f"{folder.name} cannot be opened ({reason(error)})") from error
    return [file for file in files if "submission" not in file.name.lower()]
