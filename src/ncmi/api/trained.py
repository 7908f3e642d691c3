"""A finished run in Python: it predicts, is evaluated and exported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ncmi.errors import Interrupted
from ncmi.recipes import Recipe
from ncmi.report import read_run, readouts_table, run_table, to_html, write_report
from ncmi.training.judging import Features
from ncmi.training.prediction import Decisions, Predictor
from ncmi.training.run_folder import RunFolderError
from ncmi.training.schema import Evaluation, Results

ReadoutName = Literal["auto", "head", "cc", "lp", "knn"]
_SHORT = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "nll", "calibration_error")
_OPTION = re.compile(
    r"--(?:[a-z]+\.)?([a-z][a-z-]*[a-z])(?: (error|skip|mark|slide|own|all|last|best|cpu|auto|yes|no)\b)?"
)


@contextmanager
def python_words() -> Iterator[None]:
    """Inside it errors name options as arguments: ``bad='skip'`` for ``--data.bad skip``."""
    try:
        yield
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; resume=True goes on", stopped.signal_number) from None
    except Exception as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (as_arguments(error.args[0]), *error.args[1:])
        raise


def as_arguments(text: str) -> str:
    """A text in which options of the command line are arguments.

    Example:
        >>> as_arguments("leave them out (--data.bad skip), or name it (--data.label-column)")
        "leave them out (bad='skip'), or name it (label_column)"
        >>> as_arguments("go on with it (--resume auto), or replace it (--overwrite)")
        'go on with it (resume=True), or replace it (overwrite=True)'
    """
    return _OPTION.sub(_argument, text)


def _argument(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    if name in ("resume", "overwrite"):
        return f"{name}=True"
    return name if option[2] is None else f"{name}={option[2]!r}"


class Evaluated:
    """How a run does on labeled data.

    Attributes:
        record: all figures, as ``ncmi evaluate --json`` writes them.
    """

    def __init__(self, record: Evaluation) -> None:
        self.record = record

    @property
    def table(self) -> pd.DataFrame:
        """One row a read-out: each score with ``_low`` and ``_high``, its 95 % interval; shares in 0 … 1."""
        return readouts_table(self.record.readouts, self.record.objective)

    @property
    def accuracy(self) -> float | None:
        """Of the read-out that the objective is meant to be judged by, in 0 … 1."""
        return self.record.readouts[self.record.primary_readouts[0]].test.accuracy.value

    def __repr__(self) -> str:
        measures = self.record.information
        lines = [f"{self.record.objective} on {self.record.data}", _brief(self.table)]
        figures = (measures.cmi, measures.separation, measures.ncmi)
        cmi, separation, ncmi = ("–" if figure is None else f"{figure:.6g}" for figure in figures)
        lines.append(f"CMI {cmi} nats, Γ {separation} nats, NCMI {ncmi}")
        return "\n".join([*lines, *self.record.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(line)}</p>" for line in self.record.notes)
        return f"{_short(self.table).to_html(index=False)}{notes}"


def _short(table: pd.DataFrame) -> pd.DataFrame:
    return table[["readout", *(name for name in _SHORT if name in table)]].round(4)


def _brief(table: pd.DataFrame) -> str:
    return _short(table).to_string(index=False)


class TrainedRun:
    """A finished run, ready to predict; :func:`ncmi.load` and :func:`ncmi.train` give one.

    Inputs ``X`` are what the run was trained on, from memory or by path; its preprocessing is applied.

    - Tables: a pandas or polars frame, or a dict of columns, with columns in any order and further ones; an array
      ``[N, F]`` of the feature columns in the order of :attr:`columns`; the path of a table.
    - Images: uint8 arrays ``[N, H, W]``, ``[N, H, W, 3]`` or ``[N, 3, H, W]``, a list of arrays, of PIL images or of
      paths, or the path of an image or a folder. Of any size: they are scaled as the training images were.
    - Bags: an array ``[N, D]`` of one bag's features, a list of such arrays, or one or several paths.

    Args:
        path: the run folder.

    Attributes:
        path: the run folder.
        recipe: data, network, objective and training that it was made by.

    Raises:
        RunFolderError, CheckpointError: where no finished run is there; the message names the cure.

    Example:
        >>> import ncmi
        >>> from tempfile import TemporaryDirectory
        >>> folder = TemporaryDirectory()
        >>> run = ncmi.train("iris", out=f"{folder.name}/run", epochs=5, quiet=True)
        >>> run.predict([[5.1, 3.5, 1.4, 0.2]]).tolist()
        ['setosa']
        >>> ncmi.load(f"{folder.name}/run").predict_proba([[5.1, 3.5, 1.4, 0.2]]).shape
        (1, 3)
        >>> folder.cleanup()
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        with python_words():
            self._predictor = Predictor(self.path)
        self.recipe: Recipe = self._predictor.recipe

    @property
    def classes(self) -> npt.NDArray[Any]:
        """Names ``[C]`` of the classes, in the order of probabilities.

        They are text, int64 where all are whole numbers, or bool where they are False and True.
        """
        names = self._predictor.signature.class_names
        if names == ("False", "True"):
            return np.array([False, True])
        whole = all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in names)
        return np.array([int(name) for name in names] if whole else names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns of a table in the order of training; empty for images and bags."""
        signature = self._predictor.signature
        if signature.preprocessing is not None:
            return tuple(column.name for column in signature.preprocessing.columns)
        return signature.feature_names or ()

    @property
    def results(self) -> Results:
        """All figures of the run, as ``results.json`` holds them."""
        return self._predictor.folder.results()

    @property
    def table(self) -> pd.DataFrame:
        """Scores on the test part, one row a read-out, as of :attr:`Evaluated.table`."""
        return run_table(read_run(self.path))

    def predict(
        self, X: Any, *, readout: ReadoutName = "auto", slide_table: str | PathLike[str] | None = None
    ) -> npt.NDArray[Any]:
        """The most probable class of each sample, ``[N]`` of :attr:`classes`.

        Args:
            X: samples, see above; labels in them are not looked at.
            readout: how to decide: the objective's head, centroid comparison (CC), the linear probe (LP) or nearest
                neighbors, which reads the training data again; by default the objective's own first one.
            slide_table: where the run's bags are patients, a table of the columns slide and patient; by default
                barcodes say whose slides they are.

        Raises:
            ValueError: for data unlike the training data, or a sample that cannot be used, which
                :meth:`predict_frame` marks.
        """
        best = self._decide(X, readout, False, slide_table).probabilities.argmax(1)
        classes: npt.NDArray[Any] = self.classes[best.numpy()]
        return classes

    def predict_proba(
        self,
        X: Any,
        *,
        readout: ReadoutName = "auto",
        calibrated: bool = False,
        slide_table: str | PathLike[str] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Probabilities ``[N, C]``, float64, of the :attr:`classes`; rows sum to one.

        Args:
            X, readout, slide_table: as for :meth:`predict`.
            calibrated: with log-probabilities divided by the temperature τ that was fitted to the validation part.
        """
        probabilities = self._decide(X, readout, calibrated, slide_table).probabilities.double().numpy()
        return np.asarray(probabilities / probabilities.sum(1, keepdims=True), dtype=np.float64)

    def predict_frame(
        self,
        X: Any,
        *,
        readout: ReadoutName = "auto",
        calibrated: bool = False,
        bad: Literal["mark", "skip", "error"] = "mark",
        slide_table: str | PathLike[str] | None = None,
    ) -> pd.DataFrame:
        """What ``ncmi predict`` writes: ``id``, ``prediction``, ``probability``, ``distance`` and ``p(CLASS)``.

        Args:
            X, readout, calibrated, slide_table: as for :meth:`predict_proba`.
            bad: samples that cannot be used: "mark" gives them a ``reason`` and nothing else, "skip" leaves them out,
                "error" stops.
        """
        decisions = self._decide(X, readout, calibrated, slide_table, bad)
        frame = pd.DataFrame(list(decisions.lines()), columns=decisions.columns)
        return frame[frame["prediction"].notna()].reset_index(drop=True) if bad == "skip" else frame

    def features(self, X: Any) -> npt.NDArray[np.float32]:
        """Features ``[N, D]`` of the network, before any read-out, float32."""
        with python_words():
            rows, _ = self._predictor.rows(X, "error")
            if unusable := [row for row in rows if row.feature is None]:
                raise ValueError(
                    f"{unusable[0].name}: {unusable[0].reason} ({len(unusable)} such): correct or remove it"
                )
        return np.stack([row.feature.detach().float().numpy() for row in rows if row.feature is not None])

    def evaluate(
        self,
        X: Any = None,
        y: Any = None,
        *,
        labels: str | None = None,
        slide_table: str | None = None,
        ood: str | Sequence[str] = (),
        bad: Literal["error", "skip"] | None = None,
    ) -> Evaluated:
        """Judge the run by all read-outs, on its own test part or on other labeled data.

        Args:
            X: None for the run's own validation and test parts; the name or path of labeled data; a frame with the
                run's label column; or samples as for :meth:`predict`, with ``y``.
            y: labels ``[N]`` of samples from memory.
            labels: table of the labels where ``X`` is a path of bags without labels.
            slide_table: table of their slides and patients, where ``labels`` has one row a patient.
            ood: data that the run was not trained for, by names or paths: how well it is told from the test part.
            bad: what of a path cannot be used: stop, or leave it out and say so; by default as in training.
        """
        from ncmi.data.in_memory import is_path
        from ncmi.training.evaluation import evaluate_run

        with python_words():
            if X is None and y is not None:
                raise ValueError("y without X: give the samples that are labeled so")
            on: str | Features | None = str(X) if is_path(X) else None
            notes: tuple[str, ...] = ()
            if X is not None and on is None:
                on, notes = self._predictor.labeled(X, y)
            names = (ood,) if isinstance(ood, str) else tuple(ood)
            record = evaluate_run(self.path, on, names, labels, bad, slide_table)
        _warn(notes)
        return Evaluated(record)

    def to_onnx(
        self,
        path: str | PathLike[str],
        *,
        readout: ReadoutName = "auto",
        calibrated: bool = False,
        overwrite: bool = False,
    ) -> Path:
        """Write the run as one ONNX file with preprocessing and class names inside; see :mod:`ncmi.training.export`.

        It is run by onnxruntime, and compared with this run, before it is put in its place.

        Args:
            path: the file, ``.onnx``.
            readout: "head", "cc" or "lp"; by default the objective's own first one.
            calibrated: probabilities by the temperature τ of the validation part.
            overwrite: replace an existing file.

        Returns:
            The path.

        Raises:
            ModuleNotFoundError: without onnx, onnxscript or onnxruntime: ``pip install 'ncmi[export]'``.
            ValueError: for a network or read-out that cannot be exported.
        """
        return self._export("onnx", path, readout, calibrated, overwrite)

    def to_torch(
        self,
        path: str | PathLike[str],
        *,
        readout: ReadoutName = "auto",
        calibrated: bool = False,
        overwrite: bool = False,
    ) -> Path:
        """Write the run as a program of ``torch.export`` (``.pt2``), which runs without ncmi; see :meth:`to_onnx`."""
        return self._export("torch", path, readout, calibrated, overwrite)

    def _export(
        self,
        to: Literal["onnx", "torch"],
        path: str | PathLike[str],
        readout: ReadoutName,
        calibrated: bool,
        overwrite: bool,
    ) -> Path:
        from ncmi.training.export import export_run

        with python_words():
            return export_run(
                self._predictor, to, Path(path), readout=readout, calibrated=calibrated, overwrite=overwrite
            ).path

    def report(self, out: str | PathLike[str] | None = None) -> Path:
        """Write the run's page, by default ``report.html`` in its folder, and return its path."""
        return write_report(self.path, None if out is None else Path(out))

    def _decide(
        self,
        X: Any,
        readout: str,
        calibrated: bool,
        slide_table: str | PathLike[str] | None,
        bad: Literal["mark", "skip", "error"] = "error",
    ) -> Decisions:
        with python_words():
            if slide_table is not None and getattr(self.recipe.data, "unit", "") != "patient":
                raise ValueError("slide_table: the samples of this run are no patients: leave it out")
            table = None if slide_table is None else Path(slide_table)
            try:
                decisions = self._predictor.decide(X, readout, calibrated=calibrated, bad=bad, slide_table=table)
            except ValueError as error:
                if bad == "error" and error.args and "--bad mark" in str(error.args[0]):
                    error.args = (f"{str(error).partition(': correct it')[0]}: predict_frame(X) marks such samples",)
                raise
        _warn(decisions.notes)
        return decisions

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.classes[:5])) + (" …" if len(self.classes) > 5 else "")
        about = f"{self.recipe.objective.name} on {self.recipe.data.title}, {len(self.classes)} classes ({names})"
        return f"TrainedRun({str(self.path)!r}): {about}\n{_brief(self.table)}"

    def _repr_html_(self) -> str:
        return to_html(self.path)


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=4)


def load(run: str | PathLike[str]) -> TrainedRun:
    """A finished run, ready to predict.

    Args:
        run: the run folder that ``ncmi train``, ``ncmi compare`` or :func:`ncmi.train` wrote.

    Raises:
        RunFolderError, CheckpointError: where no finished run is there; the message names the cure.
    """
    folder = Path(run)
    if (folder / "comparison.json").exists():
        inside = sorted(path.parent for path in folder.glob("runs/*/results.json"))
        raise RunFolderError(
            f"{folder} holds a comparison: give one of its runs, such as {inside[0] if inside else folder / 'runs'}, "
            "or read all of it with ncmi.ComparisonResults"
        )
    return TrainedRun(folder)
