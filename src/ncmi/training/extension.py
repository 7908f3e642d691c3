"""A run that is trained for longer than it was meant to: what of its folder is kept, and what becomes of the rate."""

from dataclasses import replace
from pathlib import Path

from ncmi.files import write_json
from ncmi.recipes import Training, recipe_to_dict
from ncmi.training.identity import located
from ncmi.training.optimizers import learning_rate_factor
from ncmi.training.run_folder import RunFolder, RunFolderError
from ncmi.training.sources import open_source


def extend(path: str | Path, epochs: int) -> str:
    """Make a stopped or finished run one of more epochs, to be gone on with by ``train(…, resume=True)``.

    The schedule of the learning rate is drawn anew over all epochs, so the rate jumps, and the result is not that of a
    run that was meant to be so long. The folder keeps the earlier recipe as ``recipe-before.json`` and the earlier
    results as ``results-before.json``; figures of the longer run take their place.

    Args:
        path: the run folder.
        epochs: of the whole run, those that are done included.

    Returns:
        What that means for the schedule, in a line.

    Raises:
        RunFolderError: where there is nothing to go on from, it has had so many epochs already, or it was ended by
            its patience, or its data has changed.
        FileNotFoundError, ValueError: where its data cannot be read.
    """
    folder = RunFolder.open(path)
    with folder.lock():
        recipe = folder.recipe()
        training = recipe.training
        if not folder.checkpoint.exists():
            raise RunFolderError(f"{folder.path}: no checkpoint to train on from: train it anew with that many epochs")
        rows = folder.metrics()
        done = rows[-1].epoch if rows else 0
        if epochs <= max(done, training.epochs if not folder.finished else 0):
            raise RunFolderError(
                f"{folder.path}: --epochs {epochs}: {done} of {training.epochs} epochs are done: give more of them, or "
                "leave --epochs out to go on as planned"
            )
        if folder.finished and done < training.epochs:
            raise RunFolderError(
                f"{folder.path}: its patience ({training.patience}) ended it after epoch {done}: train it anew with a "
                "larger --training.patience"
            )
        # before anything is put aside: what cannot be gone on with is to stay finished
        source = open_source(replace(recipe, data=located(recipe.data, folder)), read=False)
        source.check_unchanged(folder, source.record())
        longer = replace(training, epochs=epochs)
        earlier = folder.path / "recipe-before.json"
        write_json(earlier, recipe_to_dict(recipe))
        results = folder.path / "results.json"
        if results.exists():
            results.replace(folder.path / "results-before.json")
        write_json(folder.path / "recipe.json", recipe_to_dict(replace(recipe, training=longer)))
    steps = rows[-1].steps if rows else 0
    before, after = (_rate(each, steps, steps // max(1, done)) for each in (training, longer))
    return (
        f"trained for {epochs} epochs in place of {training.epochs}: the schedule ({training.schedule}) is drawn anew "
        f"over all of them, and after epoch {done} the learning rate goes from {before:.3g} to {after:.3g}; earlier "
        f"recipe: {earlier}"
    )


def _rate(training: Training, step: int, steps_per_epoch: int) -> float:
    return training.learning_rate * learning_rate_factor(training, max(1, steps_per_epoch))(step)
