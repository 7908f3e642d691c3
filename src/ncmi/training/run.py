"""One run from recipe to results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncmi.backbones import load_weights
from ncmi.data import Dataset, Standardiser
from ncmi.loss import NCMILoss
from ncmi.recipes import Recipe, recipe_from_dict, recipe_to_dict, resolve_recipe
from ncmi.training.environment import describe_environment
from ncmi.training.evaluate import evaluate_readouts, information
from ncmi.training.model import Model, Signature
from ncmi.training.parts import dataset_of, parts_of
from ncmi.training.run_folder import RunFolder
from ncmi.training.session import launch, open_folder, write_arrays
from ncmi.training.signals import StopRequest
from ncmi.training.tensor_loop import TensorLoop
from ncmi.training.tensorboard import TensorBoardLog

_FORMAT = 1


def train(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    dataset: Dataset | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    catch_signals: bool = True,
) -> dict[str, Any]:
    """Train by a recipe into a new run folder, or go on with an unfinished one.

    Args:
        recipe: data, backbone, objective, training. With ``resume`` it must be the folder's own.
        path: the run folder.
        resume: go on from the last checkpoint; a finished run just gives its results.
        dataset: the data, where it has been loaded already.
        on_epoch: called with each epoch's metrics.
        catch_signals: let Ctrl-C and SIGTERM stop the run after the present step, with a checkpoint.

    Returns:
        The content of ``results.json``.

    Raises:
        ValueError: for a recipe with a misspelt or mistyped value, for weights that do not fit its backbone, or for
            alternation by class means with centroids that cannot be put there.
        RunFolderError: if the folder exists (without ``resume``), or holds another recipe (with it).
        Interrupted: when asked to stop.
        FloatingPointError: when the run diverges; the message names the cure.
    """
    recipe = recipe_from_dict(recipe_to_dict(recipe))  # as a folder would give it back: every value is checked
    training = recipe.training
    fabric = launch(training)
    if fabric.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches keep their shape
    started = time.perf_counter()
    if dataset is None:
        dataset = dataset_of(recipe.data)
    dataset, split = parts_of(recipe, dataset)
    recipe = resolve_recipe(recipe, dataset.sample_shape, dataset.num_classes, len(split.train))
    training = recipe.training
    fabric.seed_everything(training.seed, verbose=False)
    model = Model(recipe, Signature.of(dataset))
    if training.alternation.mode == "class_means" and isinstance(model.objective, NCMILoss):
        model.objective.check_settable()
    if recipe.backbone.weights is not None and not (resume and RunFolder(path).begun):
        load_weights(model.backbone, recipe.backbone.weights)
    if training.devices > 1 and fabric.device.type == "cuda":
        # statistics of the whole batch, as on one device; there is no such layer for CPUs
        model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
    # the folder comes last: what cannot be trained leaves nothing behind
    folder = open_folder(recipe, path, resume, fabric)
    if folder.finished:
        return folder.read("results.json")
    standardiser = Standardiser.fit(dataset.inputs[split.train], dataset.kind)
    model.standardise.load_state_dict(standardiser.state_dict())
    model.to(device=fabric.device, dtype=torch.float64 if training.precision == "64-true" else None)
    # with several processes a signal reaches some of them a step earlier: there the last epoch's checkpoint must do
    catch_signals = catch_signals and training.devices == 1
    board = TensorBoardLog(folder.path / "tensorboard", training.tensorboard and fabric.is_global_zero)
    with folder.lock(enabled=fabric.is_global_zero):
        if resume and fabric.is_global_zero:
            folder.remove_partial_files()
        with StopRequest(enabled=catch_signals) as stop, board:
            loop = TensorLoop(fabric, model, dataset, split, training, folder, (board, on_epoch))
            if resume and folder.checkpoint.exists():
                loop.resume()
            elif fabric.is_global_zero:
                folder.write("environment.json", describe_environment(fabric.device))
            loop.run(stop)
        return _judge(loop, recipe, dataset, started)


def _judge(loop: TensorLoop, recipe: Recipe, dataset: Dataset, started: float) -> dict[str, Any]:
    """Fit and judge the read-outs of a trained model, and write model, outputs and results."""
    fabric, folder, split, training = loop.fabric, loop.folder, loop.split, recipe.training
    parts = {
        name: loop.extract(indices)
        for name, indices in (("train", split.train), ("validation", split.validation), ("test", split.test))
        if len(indices)
    }
    final = loop.evaluated.eval()
    judged = evaluate_readouts(final, parts)
    results: dict[str, Any] = {
        "format": _FORMAT,
        "status": "finished",
        "data": recipe.data.name,
        "objective": recipe.objective.name,
        "seed": training.seed,
        "epochs": loop.progress.epoch,
        "best_epoch": loop.progress.best_epoch,
        "selection": training.selection,
        "readouts": judged.readouts,
        "primary_readouts": list(final.objective.readouts),
        "information": information(final, parts["test"]),
        "reliability": judged.plain_reliability(),
        "epoch_seconds": statistics.median(row["seconds"] for row in loop.progress.rows),
        "total_seconds": time.perf_counter() - started,
        "peak_memory_mb": max(row["peak_memory_mb"] for row in loop.progress.rows),
        "parameters": sum(parameter.numel() for parameter in final.trained_parameters()),
        "num_train": len(split.train),
        "num_validation": len(split.validation),
        "num_test": len(split.test),
        "class_names": list(dataset.class_names),
    }
    if fabric.is_global_zero:
        final.save(folder.model)
        arrays = {f"prediction_{name}": predicted.cpu().numpy() for name, predicted in judged.predictions.items()}
        arrays["labels"] = parts["test"].labels.cpu().numpy()
        arrays["features"] = parts["test"].features.half().cpu().numpy()
        write_arrays(folder.outputs, arrays)
        folder.write("results.json", results)
    fabric.barrier()
    return results
