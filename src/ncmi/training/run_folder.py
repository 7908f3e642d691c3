"""The folder of a run: recipe, environment, metrics, checkpoints, results, outputs on the test part."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ncmi.errors import Interrupted
from ncmi.files import PARTIAL, check_regular, finite, write_atomically, write_json, write_text
from ncmi.recipes import Recipe, recipe_from_dict, recipe_to_dict
from ncmi.training.launch import place_of_process
from ncmi.training.schema import (
    TUNING,
    DataRecord,
    EpochMetrics,
    OutOfDistribution,
    Results,
    SchemaError,
    TuningRecord,
    decode_record,
    read_record,
    write_record,
)

# bytes; features hardly shrink
_LARGE = 20_000_000


class RunFolderError(ValueError):
    """A run folder cannot be used as asked; the message names it and the cure."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a run makes of its test part, ``test_outputs.npz``.

    Attributes:
        labels: ``[N]``.
        features: ``[N, D]``, in half precision.
        predictions: by read-out, ``[N]``.
        probabilities: by read-out, ``[N, C]``; kept of bags, and of the folds of cross-validations.
        names, groups: of each bag, and of its patient; empty for other data.
    """

    labels: NDArray[np.int64]
    features: NDArray[np.float16]
    predictions: dict[str, NDArray[np.int64]]
    probabilities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    indices: NDArray[np.int64] | None = None


@contextmanager
def removed_if_nothing_came(path: Path) -> Iterator[None]:
    """Inside it a run is made: a new folder that an error leaves without a checkpoint is removed, by rank 0."""
    was_there = path.exists()
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        if place_of_process()[0] == 0 and not was_there and not (path / "checkpoints").exists():
            shutil.rmtree(path, ignore_errors=True)
        raise


class RunFolder:
    """Paths and small files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoints" / "last.safetensors"
        self.previous = self.path / "checkpoints" / "previous.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"
        self.model = self.path / "model.safetensors"

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RunFolderError: if something is there already; nothing is overwritten.
        """
        folder = cls(path)
        cls.check_free(path)
        folder.path.mkdir(parents=True, exist_ok=True)
        # by how many processes a run is made is no part of it: environment.json tells
        training = replace(recipe.training, devices=1)
        write_json(folder.path / "recipe.json", recipe_to_dict(replace(recipe, training=training)))
        return folder

    @classmethod
    def check_free(cls, path: str | Path) -> None:
        """See that a new run can be made here: what a killed process left half-written does not stand in its way.

        Raises:
            RunFolderError: if something is there already.
        """
        folder = cls(path).path
        if not folder.is_dir():
            if folder.exists() or folder.is_symlink():
                raise RunFolderError(f"{folder} is a file: choose another folder (--out)")
            return
        if any(entry.name != ".lock" and not entry.name.endswith(PARTIAL) for entry in folder.iterdir()):
            raise RunFolderError(
                f"{folder} exists and is not empty: choose another folder (--out), or go on with it (ncmi resume "
                f"{quote(str(folder))}, ncmi train --resume auto, or ncmi compare --resume)"
            )

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run.

        Raises:
            RunFolderError: if the path holds no run.
        """
        folder = cls(path)
        if not folder.exists:
            raise RunFolderError(f"{folder.path}: no run here (recipe.json is missing): give a run folder of ncmi")
        return folder

    @contextmanager
    def lock(self, enabled: bool = True) -> Iterator[None]:
        """Keep other processes from training into this folder; a process that dies lets go of it.

        Raises:
            RunFolderError: if another process trains into it.
        """
        with ExitStack() as stack:
            try:
                if enabled:
                    stack.enter_context(FileLock(self.path / ".lock", timeout=0))
            except Timeout:
                raise RunFolderError(
                    f"{self.path}: another process trains into this folder: wait until it has finished, or stop it"
                ) from None
            yield

    def remove_partial_files(self) -> None:
        """Remove what a process left half-written when it was killed."""
        for leftover in self.path.rglob(f".*{PARTIAL}"):
            leftover.unlink()

    def keep_previous(self) -> None:
        """Keep the last checkpoint under another name until a newer one has been found whole; takes no copy."""
        if self.checkpoint.exists():
            self.previous.unlink(missing_ok=True)
            with suppress(OSError):  # a disk without links: the last one must do
                os.link(self.checkpoint, self.previous)

    def recipe(self) -> Recipe:
        """The recipe as it was resolved.

        Raises:
            RunFolderError: if recipe.json is damaged.
        """
        content = self.read("recipe.json")
        try:
            return recipe_from_dict(content)
        except ValueError as error:
            raise RunFolderError(f"{self.path / 'recipe.json'}: {error}") from None

    @property
    def exists(self) -> bool:
        """Whether there is a run here, however far it has come."""
        return (self.path / "recipe.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether it holds trained weights, of an epoch or of the end."""
        return self.finished or self.checkpoint.exists()

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    def state(self) -> str:
        """``"finished"``, ``"not started"``, or how far the run came."""
        if self.finished:
            return "finished"
        if not self.exists:
            return "not started"
        rows = self.metrics()
        return f"stopped after epoch {rows[-1].epoch if rows else 0} of {self.recipe().training.epochs or '?'}"

    def results(self) -> Results:
        """What the finished run came to.

        Raises:
            SchemaError: if results.json is missing, damaged or of another version.
        """
        try:
            results = read_record(self.path / "results.json", Results)
        except SchemaError as error:
            raise SchemaError(f"{error}{self._anew}") from None
        absent = [name for name in results.primary_readouts if name not in results.readouts]
        if absent or not results.primary_readouts:
            raise SchemaError(
                f"{self.path / 'results.json'}: 'primary_readouts' {absent} have no entry in 'readouts': run it again"
            )
        return results

    @property
    def _anew(self) -> str:
        """How files of a finished run are written again from its last checkpoint; empty where it has none."""
        if not self.checkpoint.exists():
            return ""
        remove = f"remove {self.path / 'results.json'}, and " if self.finished else ""
        return f"; {remove}ncmi resume {quote(str(self.path))} writes it anew"

    def data_record(self) -> DataRecord | None:
        """Which data the run was begun with; None where it has not begun.

        Raises:
            SchemaError: if data.json is damaged.
        """
        path = self.path / "data.json"
        return read_record(path, DataRecord) if path.exists() else None

    def tuning(self) -> TuningRecord | None:
        """How its learning rate was chosen; None where it was given.

        Raises:
            SchemaError: if tuning.json is damaged.
        """
        path = self.path / TUNING
        return read_record(path, TuningRecord) if path.exists() else None

    def write_data_record(self, record: DataRecord) -> None:
        """Write data.json."""
        write_record(self.path / "data.json", record)

    def environment(self) -> dict[str, Any]:
        """Where the run was made; empty where it has not begun."""
        return self.read("environment.json") if (self.path / "environment.json").exists() else {}

    def metrics(self) -> list[EpochMetrics]:
        """All epochs so far, in order. The last line of a run that was killed may be cut: it does not count.

        Raises:
            SchemaError: if a line is damaged.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            if self.finished:
                raise SchemaError(f"{path}: is missing, though the run is finished: restore the file or run it again")
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows: dict[int, EpochMetrics] = {}
        for number, line in enumerate(lines, 1):
            try:
                row = decode_record(line, EpochMetrics, path)
            except SchemaError as error:
                if number == len(lines) and not self.finished:
                    break
                raise SchemaError(f"{error} (line {number}){self._anew}") from None
            rows[row.epoch] = row  # a resumed run may write an epoch twice: the later row is what was trained on
        return [rows[epoch] for epoch in sorted(rows)]

    def outputs(self) -> Outputs:
        """Outputs on the test part.

        Raises:
            RunFolderError: if the file is missing or damaged, or its arrays do not belong together.
        """
        path = self.path / "test_outputs.npz"
        try:
            # opened here, so that it is closed when NumPy gives up on it half-way
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        # damaged archives make NumPy, zipfile, zlib and tokenize raise a dozen unrelated kinds of exception
        except Exception as error:
            cure = f"restore the file or run it again{self._anew}"
            raise RunFolderError(f"{path}: cannot be read ({error}): {cure}") from None
        if missing := {"labels", "features"} - arrays.keys():
            raise RunFolderError(f"{path}: lacks {', '.join(sorted(missing))}: run it again into an empty folder")
        outputs = Outputs(
            labels=arrays["labels"],
            features=arrays["features"],
            predictions=_with_prefix(arrays, "prediction_"),
            probabilities=_with_prefix(arrays, "probability_"),
            names=tuple(str(name) for name in arrays.get("names", ())),
            groups=tuple(str(name) for name in arrays.get("groups", ())),
            indices=arrays.get("indices"),
        )
        count = len(outputs.labels)
        vectors = (outputs.labels, *outputs.predictions.values())
        rows: tuple[NDArray[Any], ...] = (outputs.features, *outputs.probabilities.values())
        if any(array.shape != (count,) for array in vectors) or any(len(array) != count for array in rows):
            raise RunFolderError(f"{path}: labels, predictions and features differ in length: run it again")
        classes = len(self.results().class_names) if self.finished else np.iinfo(np.int64).max
        if any(len(array) and not 0 <= array.min() <= array.max() < classes for array in vectors):
            raise RunFolderError(f"{path}: labels or predictions run outside 0..{classes - 1}: run it again")
        return outputs

    def ood(self) -> list[OutOfDistribution]:
        """What the run was shown that is none of its data (``ncmi evaluate --ood``), in order of the names.

        Raises:
            SchemaError: if a file is damaged.
        """
        return [read_record(path, OutOfDistribution) for path in sorted(self.path.glob("ood-*.json"))]

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            RunFolderError: if it is missing or damaged.
        """
        path = self.path / name
        check_regular(path)
        try:
            content = msgspec.json.decode(path.read_bytes())
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror}): is the run finished?") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            again = f"restore the file, or remove {self.path} and run it again"
            raise RunFolderError(f"{path}: damaged ({error}): {again}") from None
        if not isinstance(content, dict):
            raise RunFolderError(f"{path}: damaged, not a JSON object: restore the file or run it again")
        return content

    def write_results(self, results: Results) -> None:
        """Write results.json, which makes the run a finished one."""
        write_record(self.path / "results.json", results)

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write the metrics of all epochs so far, as JSON lines and as CSV."""
        plain: list[dict[str, Any]] = finite(rows)
        lines = [json.dumps(row, allow_nan=False) for row in plain]
        write_text(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in lines))
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(EpochMetrics.__struct_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        write_text(self.path / "metrics.csv", table.getvalue())


def _with_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write NumPy arrays into one file, whole or not at all; compressed, but for large ones, where that takes long."""
    save = np.savez if sum(array.nbytes for array in arrays.values()) > _LARGE else np.savez_compressed

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            save(file, **arrays)

    write_atomically(path, write)
