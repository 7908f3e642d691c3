"""New slides, judged by a finished run."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import torch

from ncmi.files import check_writable, write_atomically
from ncmi.slides.bag import BagError
from ncmi.slides.model import load_slide_model
from ncmi.slides.readers import open_bags
from ncmi.slides.readers.arrays import UnusableBag
from ncmi.slides.stream import BagStream
from ncmi.training.run_folder import RunFolder
from ncmi.training.session import write_arrays


@torch.no_grad()
def predict_slides(
    run: str | Path,
    features: str | Path,
    out: str | Path,
    *,
    readout: str = "auto",
    bad: str = "error",
    attention: str | Path | None = None,
    overwrite: bool = False,
    on_slide: Callable[[str], None] = lambda name: None,
) -> tuple[int, list[tuple[str, str]]]:
    """Predict all slides of a features folder or file with a finished run and write a CSV.

    Columns: ``slide``, ``prediction``, ``probability``, ``p(CLASS)`` for each class, ``distance(CLASS)``, which is
    KL(P‖S_c) in nats to each class's mean distribution over the training slides, whatever the read-out is, and
    ``instances``.

    Args:
        run: the run folder, finished.
        features: in any layout that :func:`ncmi.slides.readers.open_bags` knows, D_feat as in training.
        out: the CSV to write.
        readout: "head", "cc" or "lp"; by default the objective's own first one.
        bad: "error", or "skip": leave out slides that cannot be used.
        attention: folder for the attention over each slide, one .npz a slide.
        overwrite: replace an existing CSV.
        on_slide: called with the name of each slide that is done.

    Returns:
        The number of slides predicted, and (slide, reason) of each one left out.

    Raises:
        FileExistsError: if ``out`` exists and may not be replaced.
        BagError: for features unlike the training features, or (without "skip") a slide that cannot be used.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    check_writable(path)
    model = load_slide_model(run)
    data = RunFolder.open(run).slide_recipe().data
    chosen = model.objective.readouts[0] if readout == "auto" else readout
    if chosen not in ("head", "cc", "lp"):
        raise ValueError(f"unknown read-out {chosen!r}: use 'head', 'cc' or 'lp'")
    source = open_bags(features, features_key=data.features_key, coords_key=data.coords_key)
    names, skipped = [], []
    for name in source.names:
        try:
            width = source.shape(name)[1]
            if bad == "skip":
                source.load(name)
        except BagError as error:
            if bad == "error":
                raise
            skipped.append((name, error.reason if isinstance(error, UnusableBag) else str(error)))
            continue
        if width != model.instance_dim:
            told = f"features of width {width}, but {run} was trained on {model.instance_dim}"
            if bad == "error":
                raise BagError(
                    f"{name}: {told}: embed the slides by the encoder that the training slides were embedded by"
                )
            skipped.append((name, told))
            continue
        names.append(name)
    if not names:
        raise BagError(f"{features}: no slide can be used ({'; '.join(': '.join(one) for one in skipped[:3])})")
    rows = []
    for bag in BagStream(source, names):
        output = model(bag.features)
        vector = output.vector.unsqueeze(0)
        p = model.log_proba(vector, chosen).exp()[0].tolist()
        rows.append((bag.name, p, model.cc.divergences(vector)[0].tolist(), len(bag.features)))
        if attention is not None:
            arrays = {"attention": output.attention.float().numpy()}
            if bag.coords is not None:
                arrays["coords"] = bag.coords.numpy()
            write_arrays(Path(attention) / f"{bag.name}.npz", arrays)
        on_slide(bag.name)

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            classes = model.class_names
            heading = ["slide", "prediction", "probability", *(f"p({name})" for name in classes)]
            writer.writerow([*heading, *(f"distance({name})" for name in classes), "instances"])
            for name, p, distances, count in rows:
                best = max(range(len(p)), key=p.__getitem__)
                numbers = (f"{value:.6g}" for value in (p[best], *p, *distances))
                writer.writerow([name, classes[best], *numbers, count])

    write_atomically(path, write)
    return len(rows), skipped
