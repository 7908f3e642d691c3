"""One run of a slide classifier, from recipe to results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ncmi.backbones.bags.projection import default_width
from ncmi.files import finite
from ncmi.loss import NCMILoss
from ncmi.recipes import SlideRecipe, recipe_to_dict, slide_recipe_from_dict
from ncmi.slides import cohort_file
from ncmi.slides.cohort import Cohort, load_cohort
from ncmi.slides.loop import BagLoop
from ncmi.slides.model import SlideModel
from ncmi.slides.outcome import slide_results, write_attention, write_slide_table
from ncmi.slides.simulation import is_simulated
from ncmi.slides.splits import split_cohort
from ncmi.slides.stream import BagCache, BagStream
from ncmi.training.environment import describe_environment
from ncmi.training.run_folder import RunFolder
from ncmi.training.session import launch, open_folder
from ncmi.training.signals import StopRequest
from ncmi.training.tensorboard import TensorBoardLog


def resolve_slide_recipe(recipe: SlideRecipe, instance_dim: int) -> SlideRecipe:
    """The recipe with everything settled that it leaves open, as a run folder holds it.

    Raises:
        ValueError: for settings that slide classifiers do not have.
    """
    training = recipe.training
    if training.augmentation.enabled or training.compile:
        raise ValueError("slide classifiers have neither augmentation nor compile: leave --training.augmentation out")
    if recipe.data.validation_fraction == 0 and (training.selection == "best" or training.patience is not None):
        has_own = recipe.data.splits is not None or recipe.data.split_column is not None
        if not has_own or recipe.data.folds:
            raise ValueError(
                "validation_fraction=0 leaves nothing to select by: give --training.selection last, without patience"
            )
    batch_size = training.batch_size or training.devices
    if batch_size < training.devices:
        raise ValueError(
            f"a batch of {batch_size} slides for {training.devices} processes: give each at least one by "
            "--training.batch-size, or train with fewer processes"
        )
    network = replace(recipe.network, width=recipe.network.width or default_width(instance_dim))
    training = replace(training, epochs=training.epochs or 50, batch_size=batch_size)
    return replace(recipe, network=network, training=training)


def train_slides(
    recipe: SlideRecipe,
    path: str | Path,
    *,
    resume: bool = False,
    cohort: Cohort | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    catch_signals: bool = True,
    attention_slides: int = 8,
) -> dict[str, Any]:
    """Train a slide classifier by a recipe into a new run folder, or go on with an unfinished one.

    Args:
        recipe: data, network, objective, training. With ``resume`` it must be the folder's own.
        path: the run folder.
        resume: go on from the last checkpoint; a finished run just gives its results.
        cohort: of the recipe's data, where it has been loaded already.
        on_epoch: called with each epoch's metrics.
        catch_signals: let Ctrl-C and SIGTERM stop the run after the present step, with a checkpoint.
        attention_slides: of so many test slides the attention is kept: the surest right and wrong ones of each class.

    Returns:
        The content of ``results.json``.

    Raises:
        ValueError: for a recipe, cohort or split that cannot be trained on; the message names the cure.
        RunFolderError: if the folder exists (without ``resume``), or holds another recipe (with it).
        Interrupted: when asked to stop.
        FloatingPointError: when the run diverges.
    """
    recipe = slide_recipe_from_dict(recipe_to_dict(recipe))  # as a folder would give it back: every value is checked
    fabric = launch(recipe.training)
    started = time.perf_counter()
    # what a stopped run has read it need not read again
    begun = resume and RunFolder(path).begun
    cohort = load_cohort(recipe.data, read=not begun) if cohort is None else cohort
    split = split_cohort(cohort, recipe.data, recipe.training.seed)
    recipe = resolve_slide_recipe(recipe, cohort.feature_dim)
    training = recipe.training
    if len(split.validation) == 0 and (training.selection == "best" or training.patience is not None):
        patients = len(set(cohort.patients))
        raise ValueError(
            f"the split of {patients} patients has no validation part to select by: give more patients, a larger "
            "--data.validation-fraction, or --training.selection last"
        )
    if len(split.test) == 0:
        raise ValueError("the split has no test part to judge the run by: give --data.test-fraction above 0")
    fabric.seed_everything(training.seed, verbose=False)
    model = SlideModel(recipe, cohort.class_names, cohort.feature_dim)
    if training.alternation.mode == "class_means" and isinstance(model.objective, NCMILoss):
        model.objective.check_settable()
    if model.objective.views > 1:
        raise ValueError(f"{recipe.objective.name} needs several views of each sample, which bags do not have")
    cache = BagCache(recipe.data.cache_gigabytes)
    if recipe.data.standardise and not begun:
        model.mean, model.scale = instance_statistics(cohort, split.train, cache)
    # the folder comes last: what cannot be trained leaves nothing behind
    folder = open_folder(recipe, path, resume, fabric)
    if folder.finished:
        return folder.read("results.json")
    if resume and folder.checkpoint.exists() and (folder.path / cohort_file.NAME).exists():
        cohort_file.check_same_cohort(folder, cohort, split)
    model.to(device=fabric.device, dtype=torch.float64 if training.precision == "64-true" else None)
    # with several processes a signal reaches some of them a step earlier: there the last epoch's checkpoint must do
    catch_signals = catch_signals and training.devices == 1
    board = TensorBoardLog(folder.path / "tensorboard", training.tensorboard and fabric.is_global_zero)
    with folder.lock(enabled=fabric.is_global_zero):
        if resume and fabric.is_global_zero:
            folder.remove_partial_files()
        with StopRequest(enabled=catch_signals) as stop, board:
            loop = BagLoop(fabric, model, cohort, split, recipe, folder, (board, on_epoch), cache)
            if resume and folder.checkpoint.exists():
                loop.resume()
            elif fabric.is_global_zero:
                folder.write("environment.json", describe_environment(fabric.device))
                folder.write(cohort_file.NAME, cohort_file.describe_cohort(cohort, split))
            loop.run(stop)
        return _judge(loop, started, attention_slides)


def _judge(loop: BagLoop, started: float, attention_slides: int) -> dict[str, Any]:
    """Fit and judge the read-outs of a trained model; write model, tables, attention and results."""
    fabric, folder, recipe, cohort, split = loop.fabric, loop.folder, loop.recipe, loop.cohort, loop.split
    indices = {"train": split.train, "validation": split.validation, "test": split.test}
    parts = {name: loop.extract(chosen) for name, chosen in indices.items() if len(chosen)}
    final = loop.evaluated.eval()
    found = slide_results(final, parts, indices, cohort)
    rows = loop.progress.rows
    # as a file holds them: null for what is not defined
    results: dict[str, Any] = finite(
        {
            "format": 1,
            "kind": "slides",
            "status": "finished",
            "data": recipe.data.name,
            "network": recipe.network.name,
            "objective": recipe.objective.name,
            "seed": recipe.training.seed,
            "fold": recipe.data.fold,
            "folds": recipe.data.folds,
            "epochs": loop.progress.epoch,
            "best_epoch": loop.progress.best_epoch,
            "selection": recipe.training.selection,
            "primary_readouts": list(final.objective.readouts),
            "class_names": list(cohort.class_names),
            "simulation": is_simulated(recipe.data.features),
            "readouts": found.metrics,
            "information": found.information,
            "epoch_seconds": statistics.median(row["seconds"] for row in rows),
            "total_seconds": time.perf_counter() - started,
            "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
            "parameters": sum(parameter.numel() for parameter in final.trained_parameters()),
            **{f"num_{name}": len(chosen) for name, chosen in indices.items()},
            "skipped": [{"slide": slide, "reason": reason} for slide, reason in (*cohort.skipped, *split.left_out)],
        }
    )
    if fabric.is_global_zero:
        final.save(folder.model)
        write_slide_table(folder.path / "slides.csv", found, indices, cohort)
        write_attention(folder.path / "attention", final, found, split.test, cohort, attention_slides)
        folder.write("results.json", results)
    fabric.barrier()
    return results


def instance_statistics(cohort: Cohort, indices: Tensor, cache: BagCache) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[D_feat]`` over all instances of some slides; constants keep scale 1."""
    count = 0
    total = torch.zeros(cohort.feature_dim, dtype=torch.float64)
    squares = torch.zeros_like(total)
    shift: Tensor | None = None
    for bag in BagStream(cohort.source, [cohort.slides[index].name for index in indices.tolist()], cache=cache):
        x = bag.features.double()
        # about a value of the data's own: a small spread about a large mean keeps its digits
        shift = x[0].clone() if shift is None else shift
        x = x - shift
        count += len(x)
        total += x.sum(0)
        squares += x.square().sum(0)
    mean = total / count
    scale = (squares / count - mean.square()).clamp_min(0).sqrt()
    assert shift is not None  # a training part is never empty
    mean = mean + shift
    varies = scale > 1e-7 * mean.abs()
    return mean.float(), torch.where(varies, scale, 1.0).float()
