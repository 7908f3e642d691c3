"""One run from recipe to results, for every kind of data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from ncmi.files import write_json
from ncmi.networks import load_weights
from ncmi.recipes import Network, Recipe, recipe_from_dict, recipe_to_dict, resolve_recipe
from ncmi.training.defaults import makes_small_steps, one_thread
from ncmi.training.environment import describe_environment, precision_note
from ncmi.training.identity import located
from ncmi.training.judging import Stages, say_nothing
from ncmi.training.loggers import open_log
from ncmi.training.loop import Loop, Setup
from ncmi.training.mistakes import MOST_PICTURES, write_mistakes, write_pictures
from ncmi.training.model import Classifier, check_size
from ncmi.training.run_folder import RunFolder, RunFolderError, write_arrays
from ncmi.training.schema import DataRecord, Results, Skipped
from ncmi.training.session import session
from ncmi.training.sources import Source, open_source
from ncmi.training.stopping import StopRequest
from ncmi.training.watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ncmi.data.bags.cohort import Cohort
    from ncmi.data.dataset import Dataset
    from ncmi.data.tables.table import LabeledTable

_FEW = 10_000  # samples that read-outs are fitted to with one thread, where training needs no more
_SHARED = 10.0  # seconds in which a new folder must be seen by all hosts


def train(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool | Literal["auto"] = False,
    data: Dataset | LabeledTable | Cohort | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    on_stage: Stages = say_nothing,
    catch_signals: bool = True,
) -> Results:
    """Train by a recipe into a new run folder, or go on with an unfinished one.

    Where a launcher (torchrun, srun) has started several processes, each of them calls this, and they train together.
    Threads, random state and cuDNN flags of the caller's process are afterwards as they were.

    Args:
        recipe: data, network, objective, training. With ``resume`` it must be the folder's own, but for ``devices``.
        path: the run folder; of processes on several hosts, on a file system that they share.
        resume: go on from the last checkpoint; a finished run just gives its results. ``"auto"``: so where there is a
            run already, else begin one.
        data: the recipe's data, where it has been read already: see :func:`ncmi.training.sources.load_data`.
        on_epoch: called with each epoch's metrics.
        on_stage: told what was understood of the data, and what is begun that may take long.
        catch_signals: let Ctrl-C and SIGTERM stop the run after the present step, with a checkpoint.

    Returns:
        The content of ``results.json``.

    Raises:
        ValueError: for a recipe with a misspelt or mistyped value, data or a split that cannot be trained on, weights
            that do not fit the network, or alternation by class means with centroids that cannot be put there.
        RunFolderError: if the folder exists (without ``resume``), or holds another recipe or other data (with it).
        Interrupted: when asked to stop, which of several processes any one may be.
        PeerLost: when another process of this training has ended or stands still.
        RankError: of several processes, on the one that has failed alone.
        ToldElsewhere: of several processes, on those that another one's error has ended.
        FloatingPointError: when the run diverges; the message names the cure.
    """
    recipe = recipe_from_dict(recipe_to_dict(recipe))  # as a folder would give it back: every value is checked
    with session(recipe.training) as fabric, Watch(fabric, recipe.training.timeout_seconds) as watch:
        started = time.perf_counter()
        folder, on_stage = RunFolder(path), on_stage if fabric.is_global_zero else say_nothing
        # the first process looks for all: it soon changes what there is to see
        exists, begun, finished = fabric.broadcast((folder.exists, folder.begun, folder.finished))
        resume = exists if resume == "auto" else resume
        # what a stopped run has read it need not read again
        begun = resume and begun
        recipe = _for_processes(recipe, fabric.world_size, folder.recipe() if resume and exists else None)
        data_section = located(recipe.data, folder) if resume and data is None else recipe.data
        source = open_source(replace(recipe, data=data_section), data, read=not begun)
        signature, record = source.signature, source.record()
        # a table is told from images by what is in the file
        recipe = resolve_recipe(recipe, signature.sample_shape, len(signature.class_names), len(source.split.train))
        model = _new_model(recipe, source, fabric, begun)
        _see_same_data(record, fabric)
        # the folder comes last: what cannot be trained, on any of the processes, leaves nothing behind
        fabric.barrier()
        folder = _open_folder(recipe, path, resume, fabric)
        if begun:
            source.check_unchanged(folder, record)
        if resume and finished:
            return folder.results()
        note = precision_note(recipe.training.precision, fabric.device)
        for line in (f"{record.summary}; {_in_words(fabric)}", *record.notes, note):
            if line:
                on_stage(line)
        model.to(device=fabric.device, dtype=torch.float64 if recipe.training.precision == "64-true" else None)
        loggers = recipe.training.logger if fabric.is_global_zero else ()
        with folder.lock(enabled=fabric.is_global_zero), open_log(loggers, folder.path, recipe) as log:
            if resume and fabric.is_global_zero:
                folder.remove_partial_files()
            with StopRequest(enabled=catch_signals) as stop:
                loop = source.loop(Setup(fabric, model, recipe.training, folder, (log.epoch, on_epoch), watch))
                if begun:
                    loop.resume()
                    log.take_up(loop.progress.rows)
                if fabric.is_global_zero:
                    _write_environment(folder, fabric, loop.progress.total_steps if begun else None)
                    if not begun:
                        source.begin(folder, record)
                small = makes_small_steps(recipe.network.name, recipe.training, fabric.device)
                with one_thread(small):
                    loop.run(stop)
            with one_thread(small and len(source.split.train) <= _FEW):
                results = _finish(loop, source, recipe, started, on_stage)
            log.results(results)
        return results


def _for_processes(recipe: Recipe, processes: int, earlier: Recipe | None) -> Recipe:
    """The recipe for so many processes; of a run that goes on, with the batches that it has."""
    batch_size = recipe.training.batch_size
    if earlier is not None and batch_size == 0:
        batch_size = earlier.training.batch_size  # which may follow from the number of processes
    return replace(recipe, training=replace(recipe.training, devices=processes, batch_size=batch_size))


def _see_same_data(record: DataRecord, fabric: Fabric) -> None:
    """See that this process has read what the first one has: hosts may hold copies of their own."""
    first = fabric.broadcast((record.contents, record.classes, record.parts))
    if first != (record.contents, record.classes, record.parts):
        raise ValueError("the data here is other than that of rank 0: give all hosts the same files")


def _in_words(fabric: Fabric) -> str:
    return f"{fabric.device}" if fabric.world_size == 1 else f"{fabric.world_size} × {fabric.device.type}"


def _write_environment(folder: RunFolder, fabric: Fabric, done: int | None) -> None:
    """Write where the run is made, or, where so many steps are done, where it is gone on with."""
    environment = describe_environment(fabric.device, fabric.world_size)
    if done is not None and (earlier := folder.environment()):
        later = f"{environment['date']} after step {done}: {environment['processes']} × {environment['device']}"
        environment = earlier | {"resumed": [*earlier.get("resumed", []), later]}
    write_json(folder.path / "environment.json", environment)


def build_model(recipe: Recipe, source: Source, *, begun: bool = False) -> Classifier:
    """The model with the weights that it starts from, in single precision; its standardizer is not fitted yet.

    Args:
        recipe: resolved.
        source: the data.
        begun: of a run that a checkpoint is there of: starting weights are not read again.

    Raises:
        ValueError: where this data, network or objective does not allow what the recipe asks for.
    """
    check_size(recipe, source.signature)
    torch.manual_seed(recipe.training.seed)
    model = Classifier(recipe, source.signature)
    source.check(recipe, model)
    if recipe.training.alternation.mode == "class_means":
        model.objective.check_settable()
    if isinstance(recipe.network, Network) and recipe.network.weights is not None and not begun:
        load_weights(model.network, recipe.network.weights)
    return model


def _new_model(recipe: Recipe, source: Source, fabric: Fabric, begun: bool) -> Classifier:
    """The model as it is before the first step, in single precision."""
    model = build_model(recipe, source, begun=begun)
    if recipe.training.devices > 1 and fabric.device.type == "cuda":
        # statistics of the whole batch, as on one device; there is no such layer for CPUs
        model.network = nn.SyncBatchNorm.convert_sync_batchnorm(model.network)
    if not begun:
        source.fit_standardizer(model)
    return model


def _open_folder(recipe: Recipe, path: str | Path, resume: bool, fabric: Fabric) -> RunFolder:
    """The folder of a new run, or with ``resume`` that of an earlier run by the same recipe."""
    if resume:
        folder = RunFolder.open(path)
        if folder.recipe() != recipe:
            raise RunFolderError(f"{folder.path} holds another recipe: resume it with its own, or choose another --out")
        return folder
    problem: Exception | None = None
    if fabric.is_global_zero:
        try:
            RunFolder.create(path, recipe)
        except (RunFolderError, OSError) as error:
            problem = error
    if (problem := fabric.broadcast(problem)) is not None:
        raise problem
    folder = RunFolder(path)
    until = time.monotonic() + _SHARED
    while not folder.exists:  # file systems of several hosts take their time
        if time.monotonic() > until:
            raise RunFolderError(
                f"{folder.path}: the first process has made this folder, and this host does not see it: choose one "
                "(--out) on a file system that all hosts share"
            )
        time.sleep(_SHARED / 100)
    return folder


def _finish(loop: Loop, source: Source, recipe: Recipe, started: float, on_stage: Stages) -> Results:
    """Fit and judge the read-outs of a trained model, and write model, outputs and results."""
    fabric, folder, split = loop.fabric, loop.folder, loop.split
    outcome = source.outcome(loop, recipe.training.neighbors_limit, on_stage)
    model = loop.evaluated.eval()
    class_names, judgment = source.signature.class_names, outcome.judgment
    results = Results(
        kind=recipe.data.kind,
        data=recipe.data.title,
        network=recipe.network.name,
        objective=recipe.objective.name,
        seed=recipe.training.seed,
        fold=recipe.data.fold,
        folds=recipe.data.folds,
        epochs=loop.progress.epoch,
        best_epoch=loop.progress.best_epoch,
        selection=recipe.training.selection,
        class_names=list(class_names),
        num_train=len(split.train),
        num_validation=len(split.validation),
        num_test=len(split.test),
        judged=source.judged_part,
        primary_readouts=[name for name in model.objective.readouts if name in model.judged],
        readouts=judgment.readouts,
        class_counts=outcome.class_counts,
        information=outcome.information,
        epoch_seconds=statistics.median(row["seconds"] for row in loop.progress.rows),
        total_seconds=time.perf_counter() - started,
        peak_memory_mb=max(row["peak_memory_mb"] for row in loop.progress.rows),
        parameters=sum(parameter.numel() for parameter in model.trained_parameters()),
        simulation=source.simulation,
        skipped=[Skipped(name=name, reason=reason) for name, reason in source.skipped],
    )
    if fabric.is_global_zero:
        on_stage("writing the run folder …")
        model.save(folder.model)
        test, mistakes = outcome.test, outcome.mistakes
        predictions = {f"prediction_{name}": log_p.argmax(-1) for name, log_p in judgment.log_p["test"].items()}
        write_mistakes(folder.path, mistakes, source.names(source.judged[mistakes.rows]), class_names)
        if (pictures := source.pictures(source.judged[mistakes.rows[:MOST_PICTURES]])) is not None:
            write_pictures(folder.path, pictures)
        tensors = {"labels": test.labels, "features": test.features.half(), **predictions}
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        arrays |= {"names": np.array(source.names(source.judged[outcome.places])), **source.output_arrays(judgment)}
        write_arrays(folder.path / "test_outputs.npz", arrays)
        source.write_outputs(folder, model, judgment, outcome.parts)
        folder.write_results(results)
    fabric.barrier()
    return results
