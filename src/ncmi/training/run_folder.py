"""The folder of a run: recipe, environment, metrics, checkpoints, results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from ncmi.files import PARTIAL, finite, write_json, write_text
from ncmi.recipes import Recipe, SlideRecipe, recipe_from_dict, recipe_to_dict, slide_recipe_from_dict

R = TypeVar("R")


class RunFolderError(ValueError):
    """A run folder cannot be used as asked; the message names it and the cure."""


class RunFolder:
    """Paths and small files of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoints" / "last.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"
        self.model = self.path / "model.safetensors"
        self.outputs = self.path / "test_outputs.npz"

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe | SlideRecipe) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            RunFolderError: if something is there already; nothing is overwritten.
        """
        folder = cls(path)
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            if not folder.path.is_dir():
                raise RunFolderError(f"{folder.path} is a file: choose another folder")
            verb = "ncmi slides" if isinstance(recipe, SlideRecipe) else "ncmi"
            raise RunFolderError(
                f"{folder.path} exists and is not empty: choose another folder, "
                f"or go on with it ({verb} resume, or {verb} compare --resume)"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.path / "recipe.json", recipe_to_dict(recipe))
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run.

        Raises:
            RunFolderError: if the path holds no run.
        """
        folder = cls(path)
        if not (folder.path / "recipe.json").is_file():
            raise RunFolderError(f"{folder.path}: no run here (recipe.json is missing): give a run folder of ncmi")
        return folder

    @contextmanager
    def lock(self, enabled: bool = True) -> Iterator[None]:
        """Keep other processes from training into this folder; a process that dies lets go of it.

        Raises:
            RunFolderError: if another process trains into it.
        """
        if not enabled:
            yield
            return
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunFolderError(
                f"{self.path}: another process trains into this folder: wait until it has finished, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def remove_partial_files(self) -> None:
        """Remove what a process left half-written when it was killed."""
        for leftover in self.path.rglob(f".*{PARTIAL}"):
            leftover.unlink()

    def recipe(self) -> Recipe:
        """The recipe as it was resolved.

        Raises:
            RunFolderError: if recipe.json is damaged.
        """
        return self._recipe(recipe_from_dict)

    def slide_recipe(self) -> SlideRecipe:
        """The recipe of a slide classifier as it was resolved.

        Raises:
            RunFolderError: if recipe.json is damaged or of another kind of run.
        """
        return self._recipe(slide_recipe_from_dict)

    def _recipe(self, convert: Callable[[dict[str, Any]], R]) -> R:
        content = self.read("recipe.json")
        try:
            return convert(content)
        except ValueError as error:
            raise RunFolderError(f"{self.path / 'recipe.json'}: {error}") from None

    @property
    def begun(self) -> bool:
        """Whether it holds trained weights, of an epoch or of the end."""
        return self.finished or self.checkpoint.exists()

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            RunFolderError: if it is missing or damaged.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror}): is the run finished?") from None
        except ValueError as error:
            raise RunFolderError(f"{path}: damaged ({error}): restore the file or run it again") from None
        if not isinstance(content, dict):
            raise RunFolderError(f"{path}: damaged, not a JSON object: restore the file or run it again")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        write_json(self.path / name, content)

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write the metrics of all epochs so far, as JSON lines and as CSV."""
        lines = [json.dumps(finite(row), allow_nan=False) for row in rows]
        write_text(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in lines))
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else ["epoch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(finite(rows))
        write_text(self.path / "metrics.csv", table.getvalue())
