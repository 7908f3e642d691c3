"""New data decided by a finished run: what ``ncmi predict`` writes as CSV, and :class:`ncmi.TrainedRun` returns."""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ncmi.files import check_writable, inert_cell, write_atomically
from ncmi.readouts.calibration import apply_temperature
from ncmi.readouts.neighbors import NearestNeighbors
from ncmi.readouts.scores import by_group
from ncmi.recipes import BagData, ImageData, TableData
from ncmi.recipes.names import READOUTS
from ncmi.training.defaults import torch_defaults
from ncmi.training.evaluation import open_own_source
from ncmi.training.judging import Features, fit_neighbors
from ncmi.training.model import load_model
from ncmi.training.run_folder import RunFolder, RunFolderError
from ncmi.training.streams import neighbors_of_stream

Bad = Literal["mark", "skip", "error"]


@dataclass(frozen=True)
class Predicted:
    """What came of a prediction.

    Attributes:
        rows: how many samples were predicted.
        skipped: (name, reason) of those that could not be; tables and images have a row without prediction for them.
        notes: what a user should know.
        patients: the CSV of one row a patient, where one was written.
    """

    rows: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    patients: Path | None = None


@dataclass(frozen=True, eq=False)
class NewRow:
    """A sample of new data.

    Attributes:
        name: of a patient's bag the patient.
        feature: ``[D]``; None where there is none.
        instances: of a bag.
        slides: that a patient's bag was joined of.
        reason: why there is no feature.
    """

    name: str
    feature: Tensor | None
    instances: int | None = None
    slides: int | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Decisions:
    """How samples are decided.

    Attributes:
        rows: all samples.
        probabilities, distances: ``[n, C]``, of those that have a feature: of each class, and to each class's centroid
            (KL in nats, by CC whatever the read-out is).
        class_names: C.
        notes: what a user should know.
    """

    rows: Sequence[NewRow]
    probabilities: Tensor
    distances: Tensor
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns of :meth:`lines`."""
        names = ["id", "prediction", "probability", "distance", *(f"p({name})" for name in self.class_names)]
        if any(row.instances is not None for row in self.rows):
            names += [*(f"distance({name})" for name in self.class_names), "instances"]
        if any(row.slides is not None for row in self.rows):
            names += ["slides"]
        return [*names, "reason"] if any(row.feature is None for row in self.rows) else names

    def lines(self) -> Iterator[list[Any]]:
        """A line for each sample, as :func:`predict` says; None where there is nothing."""
        columns = self.columns
        probabilities, distances = iter(self.probabilities.tolist()), iter(self.distances.tolist())
        for row in self.rows:
            cells: dict[str, Any] = {"id": row.name}
            if row.feature is not None:
                p, each = next(probabilities), next(distances)
                best = max(range(len(p)), key=p.__getitem__)
                values = [self.class_names[best], p[best], min(each), *p]
                values += [] if row.instances is None else [*each, row.instances]
                values += [] if row.slides is None else [row.slides]
                cells |= dict(zip(columns[1:], [*values, None], strict=False))  # no reason
            else:
                cells["reason"] = row.reason
            yield [cells.get(name) for name in columns]


class Predictor:
    """A finished run, ready to decide.

    Args:
        run: the run folder.

    Raises:
        RunFolderError, CheckpointError: where no finished run is there.
    """

    def __init__(self, run: str | Path) -> None:
        self.model, self.folder = load_model(run), RunFolder.open(run)
        self.model.requires_grad_(False)
        self.recipe = self.folder.recipe()
        self.signature = self.model.signature

    def readout(self, name: str = "auto") -> str:
        """The read-out that a name means: "head", "cc", "lp" or "knn"; "auto" is the objective's own first one.

        Raises:
            ValueError: for another name, or a read-out that the run does not have.
        """
        if name not in ("auto", *READOUTS):
            raise ValueError(f"unknown read-out {name!r}: use {', '.join(READOUTS)}")
        name = self.model.objective.readouts[0] if name == "auto" else name
        if name == "knn" and len(self.model.judged) == 1:
            raise ValueError("this run has no nearest neighbors (--training.readouts own): choose another --readout")
        return name

    def temperature(self, readout: str) -> float:
        """The τ of a read-out that was fitted to the run's validation part.

        Raises:
            ValueError: where the run has none.
        """
        if len(self.model.judged) == 1 and readout not in self.model.judged:
            raise ValueError(
                f"this run was judged by {READOUTS[self.model.judged[0]]} alone (--training.readouts own), and has a "
                f"temperature for nothing else: predict without --calibrated, or give --readout {self.model.judged[0]}"
            )
        path, readouts = self.folder.path / "results.json", self.folder.results().readouts
        if readout not in readouts:
            raise RunFolderError(f"{path}: no results of {readout!r}: restore the file or run it again")
        calibration = readouts[readout].calibration
        if calibration is None:
            raise RunFolderError(
                f"{self.folder.path}: this run has no validation part to fit a temperature to: predict without "
                "--calibrated, or train with a validation part"
            )
        if not calibration.temperature > 0:
            raise RunFolderError(f"{path}: temperature of {readout!r} is not above 0: restore it")
        return calibration.temperature

    @cached_property
    def _neighbors(self) -> NearestNeighbors:
        """kNN, fitted to the run's training part as when it was finished."""
        source, limit = open_own_source(self.folder), self.recipe.training.neighbors_limit
        if (streams := source.streams(self.model)) is None:
            neighbors = fit_neighbors(self.model, source.features(self.model, source.split.train), limit)
        else:
            neighbors = neighbors_of_stream(self.model, streams["train"], limit)
        if neighbors is None:
            raise ValueError(
                "this run has no nearest neighbors (--training.neighbors-limit 0): choose another --readout"
            )
        return neighbors

    @torch_defaults()
    def rows(
        self, inputs: Any, bad: Bad = "mark", attention: Path | None = None, slide_table: str | Path | None = None
    ) -> tuple[list[NewRow], tuple[str, ...]]:
        """Features of new data, and what to know of it.

        Args:
            inputs: a path, or of tables and images what :func:`ncmi.data.in_memory.new_samples` takes; of bags also an
                array ``[N, D]``, or a list of arrays or paths.
            bad: with "error" what is wrong with a bag's shape is said before any is read.
            attention: folder for the attention over each bag.
            slide_table: table of slides and patients, for a run whose bags are patients.
        """
        if isinstance(self.recipe.data, BagData):
            skipped: list[tuple[str, str]] = []
            rows, notes = self._bag_rows(self.recipe.data, inputs, bad, attention, slide_table, skipped)
            return [*rows, *(NewRow(slide, None, reason=reason) for slide, reason in skipped)], notes
        if attention is not None:
            raise ValueError(
                "attention is over the instances of bags, which tables and images do not have: leave it out"
            )
        from ncmi.data.in_memory import new_samples
        from ncmi.training.samples import features_of

        assert isinstance(self.recipe.data, TableData | ImageData)
        new = new_samples(inputs, self.signature, self.recipe.data)
        features = iter(features_of(self.model, new.inputs).float()) if len(new.inputs) else iter(())
        return [
            NewRow(name, next(features)) if usable else NewRow(name, None, reason=new.reasons[place])
            for place, (name, usable) in enumerate(zip(new.names, new.usable.tolist(), strict=True))
        ], new.notes

    @torch_defaults()
    def labeled(self, inputs: Any, labels: Any = None) -> tuple[Features, tuple[str, ...]]:
        """Features of labeled data from memory, and what to know of it.

        Args:
            inputs: see :meth:`rows`.
            labels: ``[N]``, names of classes; None where a frame has the run's label column.

        Raises:
            ValueError: for labels that the run does not know, or samples that cannot be used.
        """
        from ncmi.data.in_memory import as_frame, is_frame, label_indices

        if labels is None:
            from ncmi.data.load import new_rows
            from ncmi.training.samples import features_of

            if not isinstance(self.recipe.data, TableData) or not is_frame(inputs):
                raise ValueError("samples without labels: give y as well, or a frame with the label column")
            new = new_rows(as_frame(inputs), self.signature, self.recipe.data, labeled=True)
            assert new.labels is not None
            unusable = [(new.names[place], reason) for place, reason in new.reasons.items()]
            features, indices, notes = features_of(self.model, new.inputs), new.labels[new.usable], new.notes
        else:
            rows, notes = self.rows(inputs)
            indices = label_indices(labels, self.signature)
            if len(indices) != len(rows):
                raise ValueError(f"{len(rows)} samples and {len(indices)} labels: give one for each")
            unusable = [(row.name, row.reason) for row in rows if row.feature is None]
            features = torch.stack([row.feature for row in rows if row.feature is not None])
        if unusable:
            raise ValueError(f"{': '.join(unusable[0])} ({len(unusable)} such): correct or remove it")
        return Features(features.to(self.model.dtype), indices), notes

    @torch.no_grad()
    def _bag_rows(
        self,
        data: BagData,
        inputs: Any,
        bad: Bad,
        attention: Path | None,
        slide_table: str | Path | None,
        skipped: list[tuple[str, str]],
    ) -> tuple[list[NewRow], tuple[str, ...]]:
        from ncmi.data.bags.bag import BagError
        from ncmi.data.bags.patients import JoinedBags
        from ncmi.data.bags.stream import usable_bags
        from ncmi.data.in_memory import MemoryBags, open_any_bags
        from ncmi.training.bags import unknown_encoder, write_attention

        def leave_out(name: str, reason: str) -> None:
            skipped.append((name, reason))

        width, encoder = self.signature.sample_shape[0], self.signature.encoder
        sources = list(open_any_bags(inputs, features_key=data.features_key, coords_key=data.coords_key))
        rows: list[NewRow] = []
        notes: dict[str, None] = {}
        from_memory, names = isinstance(sources[0], MemoryBags), None
        if data.unit == "patient":
            joined, note = JoinedBags.by_patient(
                sources, slide_table, slide_column=data.slide_column, patient_column=data.patient_column
            )
            # in the order of the inputs, as slides are; an array is a patient's
            sources, notes, names = [joined], {} if from_memory else {note: None}, tuple(joined.slides)
        for source in sources:
            first = len(rows)
            # that nothing in a file can be used is no error where there are others
            with nullcontext() if bad == "error" or len(sources) == 1 else suppress(BagError):
                on_bad = None if bad == "error" else leave_out
                for bag in usable_bags(source, width, encoder=encoder, names=names, on_bad=on_bad):
                    vector = self.model(bag.features).vector
                    rows.append(NewRow(bag.name, vector, len(bag.features), len(bag.slides) or None))
                    if attention is not None:
                        write_attention(attention, self.model, bag)
            if len(rows) > first and not from_memory:  # arrays come from whoever knows them
                notes |= dict.fromkeys(unknown_encoder(self.model, source, [row.name for row in rows[first:]]))
        return rows, tuple(notes)

    @torch.no_grad()
    def log_proba(self, features: Tensor, readout: str, temperature: float | None = None) -> Tensor:
        """Log-probabilities ``[n, C]`` of features ``[n, D]`` by a read-out, divided by a temperature where given."""
        if readout == "knn":
            log_p = self._neighbors.predict_log_proba(features)
        else:
            log_p = self.model.log_proba(features, readout)
        return log_p if temperature is None else apply_temperature(log_p, temperature)

    @torch_defaults()
    @torch.no_grad()
    def decide(
        self,
        inputs: Any,
        readout: str = "auto",
        *,
        calibrated: bool = False,
        bad: Bad = "mark",
        attention: Path | None = None,
        slide_table: str | Path | None = None,
        where: str = "inputs",
    ) -> Decisions:
        """Decide new data; the arguments are those of :func:`predict`, and of :meth:`rows`.

        Args:
            where: what errors call the inputs.

        Raises:
            ValueError: for data unlike the training data, or where no sample can be decided.
        """
        name = self.readout(readout)
        temperature = self.temperature(name) if calibrated else None
        rows, notes = self.rows(inputs, bad, attention, slide_table)
        unusable = [row for row in rows if row.feature is None]
        if unusable and bad == "error":
            raise ValueError(
                f"{where}: {unusable[0].name}: {unusable[0].reason} ({len(unusable)} such): correct it, or have them "
                "marked (--bad mark) or left out (--bad skip)"
            )
        if len(unusable) == len(rows):
            first = f": {unusable[0].name}, {unusable[0].reason}" if unusable else ""
            raise ValueError(f"{where}: none of {len(rows)} samples can be predicted{first}")
        features = torch.stack([row.feature for row in rows if row.feature is not None])
        return Decisions(
            rows,
            self.log_proba(features, name, temperature).exp(),
            self.model.cc.divergences(features),
            self.signature.class_names,
            notes,
        )


def predict(
    run: str | Path,
    inputs: str | Path,
    out: str | Path,
    *,
    readout: str = "auto",
    calibrated: bool = False,
    bad: Bad = "mark",
    attention: str | Path | None = None,
    slide_table: str | Path | None = None,
    overwrite: bool = False,
) -> Predicted:
    """Predict a file or folder of new data with a finished run and write a CSV.

    Columns: ``id`` (by the run's id column, else row number, file name or slide), ``prediction``, ``probability``,
    ``distance`` (KL in nats to the nearest of the centroids that CC compares with, whatever the read-out is), and
    ``p(CLASS)`` for each class; of bags also ``distance(CLASS)`` for each class, and ``instances``. Where a sample
    cannot be predicted, its row holds its id alone, and a last column, ``reason``, says why.

    Of slides whose patients are known and have several, a second CSV, called OUT-patients, has a row a patient: the
    mean of its slides' probabilities, the number of ``slides`` that it is of, and how many were ``left_out``. Where a
    run's bags are patients, the rows are patients, with their number of ``slides``.

    Args:
        run: the run folder, finished.
        inputs: like the training data: columns in any order, and further ones; labels are not looked at.
        out: the CSV to write; ``-`` for standard output.
        readout: "head", "cc", "lp" or "knn", which reads the run's training data again; by default the objective's own
            first one.
        calibrated: probabilities after division of the log-probabilities by the τ that was fitted to the run's
            validation part; predictions stay the same.
        bad: samples that cannot be used: "mark" writes them as such, "skip" leaves them out, "error" stops.
        attention: folder for the attention over each slide, one .npz a slide.
        slide_table: table with the columns slide and patient; by default patients are known by barcodes.
        overwrite: replace an existing CSV.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
        ValueError: for data unlike the training data, an ``out`` that is one of the inputs, or if ``calibrated`` and
            the run has no τ.
    """
    predictor = Predictor(run)
    path = None if str(out) == "-" else Path(out)
    if path is not None:
        _check_out(path, Path(inputs), predictor.folder, overwrite)
    if slide_table is not None and not isinstance(predictor.recipe.data, BagData):
        raise ValueError("--slide-table is of slides, which tables and images are not: leave it out")
    attention = None if attention is None else Path(attention)
    decisions = predictor.decide(
        str(inputs),
        readout,
        calibrated=calibrated,
        bad=bad,
        attention=attention,
        slide_table=slide_table,
        where=str(inputs),
    )
    of_patients = _patient_lines(predictor, decisions, slide_table, marked=bad == "mark")
    patients = None if path is None or not of_patients else path.with_name(f"{path.stem}-patients{path.suffix}")
    if patients is not None:
        _check_out(patients, Path(inputs), predictor.folder, overwrite)
    unusable = tuple((row.name, row.reason) for row in decisions.rows if row.feature is None)
    if bad == "skip":
        decisions = replace(decisions, rows=[row for row in decisions.rows if row.feature is not None])
    lines = _lines(decisions)
    if path is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
    else:
        write_atomically(path, lambda temporary: _write(temporary, lines))
    notes = decisions.notes
    if patients is not None:
        write_atomically(patients, lambda temporary: _write(temporary, of_patients))
    elif of_patients:
        notes += ("patients have several slides: their own table is written where --out is a file",)
    return Predicted(len(decisions.probabilities), unusable, notes, patients)


def _patient_lines(
    predictor: Predictor, decisions: Decisions, slide_table: str | Path | None, *, marked: bool
) -> list[list[str]]:
    """Heading and lines of one decision a patient; none where no patient has several slides, or each slide a label."""
    data = predictor.recipe.data
    if not isinstance(data, BagData) or data.unit == "patient":
        return []
    from ncmi.data.bags.patients import patients_of
    from ncmi.training.bags import patients_share_labels

    if slide_table is None and not patients_share_labels(predictor.folder):
        return []
    patients, _ = patients_of(
        [row.name for row in decisions.rows],
        slide_table,
        slide_column=data.slide_column,
        patient_column=data.patient_column,
    )
    known = [patients[row.name] for row in decisions.rows if row.feature is not None]
    pooled = by_group(decisions.probabilities.log().numpy(), [0] * len(known), known)
    if pooled is None:
        return []
    slides, every, classes = Counter(known), Counter(patients.values()), decisions.class_names
    lines: list[list[Any]] = [
        ["id", "prediction", "probability", *(f"p({name})" for name in classes), "slides", "left_out"]
    ]
    for patient, p in zip(pooled[2], np.exp(pooled[0]).tolist(), strict=True):
        best = max(range(len(p)), key=p.__getitem__)
        count = slides[str(patient)]
        lines.append([patient, classes[best], p[best], *p, count, every[str(patient)] - count])
    without = [patient for patient in every if patient not in slides] if marked else []
    lines += [[patient, *[None] * (len(classes) + 2), 0, every[patient]] for patient in without]
    return [[_cell(value) for value in line] for line in lines]


def _check_out(path: Path, inputs: Path, folder: RunFolder, overwrite: bool) -> None:
    """See now whether the CSV can be written, and takes nothing away."""
    record = folder.data_record()
    sources = [] if record is None else [Path(source) for source in record.paths.values()]
    if path.exists():
        for source in (inputs.expanduser(), *sources, folder.path):
            inside = source.is_dir() and path.resolve().is_relative_to(source.resolve())
            if inside or (source.exists() and path.samefile(source)):
                raise ValueError(f"--out {path} is one of the inputs, or part of the run: choose another file")
        if not overwrite:
            raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    check_writable(path)


def _lines(decisions: Decisions) -> Iterator[list[str]]:
    """Heading and lines of the CSV."""
    yield [inert_cell(name) for name in decisions.columns]
    for line in decisions.lines():
        yield [_cell(value) for value in line]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else inert_cell(str(value))


def _write(path: Path, lines: Iterable[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
