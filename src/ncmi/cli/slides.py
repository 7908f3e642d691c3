"""The verbs of ``ncmi slides``: from slides to features, and a look at a cohort. None imports torch before it runs.

What is done with features (train, compare, predict, report) is done by the verbs of all kinds of data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ncmi.cli import output
from ncmi.recipes import BagData


def tile(
    slides: Path,
    *,
    out: Path = Path("tiles"),
    mpp: float = 0.5,
    patch_size: int = 256,
    overlap: int = 0,
    min_tissue: float = 0.25,
    slide_mpp: float | None = None,
    upsample: bool = False,
    pen: bool = True,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Find the tissue on slides and lay a grid over it: a coordinates file and a thumbnail for each slide.

    The same command goes on where it was stopped. Broken slides are listed and left out.

    Args:
        slides: folder of slides, in any format that OpenSlide reads, searched with its subfolders.
        out: folder for coords/, thumbnails/ and summary.csv.
        mpp: microns per pixel of the patches: 0.5 is 20×, 0.25 is 40×.
        patch_size: side of a patch in pixels at that resolution.
        overlap: pixels that neighboring patches share.
        min_tissue: least share of tissue in a patch.
        slide_mpp: microns per pixel of the slides, where their files do not say.
        upsample: allow patches of a finer resolution than the slide has.
        pen: leave out green and blue ink; --no-pen for green stains.
        workers: slides side by side; 0 for one a processor.
        overwrite: tile all slides anew.
    """
    from ncmi.slides.tiling import TilingSettings, tile_slides

    with output.SlideCounter("slides") as counter:
        results = tile_slides(
            slides,
            out,
            TilingSettings(
                mpp=mpp,
                patch_size=patch_size,
                overlap=overlap,
                min_tissue=min_tissue,
                slide_mpp=slide_mpp,
                upsample=upsample,
                pen=pen,
            ),
            workers=workers,
            overwrite=overwrite,
            on_slide=counter.done,
        )
    output.print_left_out(results, out / "summary.csv")


def embed(
    tiles: Path,
    slides: Path,
    *,
    encoder: str = "descriptor",
    weights: Path | None = None,
    out: Path | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "cpu",
    precision: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> None:
    """Make a feature of each patch by an encoder: one features file a slide.

    The same command goes on where it was stopped. Broken slides are listed and left out.

    Args:
        tiles: the folder that `ncmi slides tile` wrote (or TRIDENT or CLAM: one .h5 of coords a slide).
        slides: folder of the slides.
        encoder: descriptor (color and texture, needs no weights), resnet18/34/50/101 (--weights), run:FOLDER (a run
            of `ncmi train` on images), timm:MODEL, or onnx:FILE for any encoder exported to ONNX.
        weights: .safetensors or .pth file of the encoder's weights.
        out: folder for features/ and embed_summary.csv; by default TILES.
        image_size: side in pixels to which patches are scaled; by default the encoder's own.
        batch_size: patches at a time.
        workers: threads that read patches; 0 for one a processor.
        device: cpu or cuda.
        precision: of the features in the file.
        overwrite: embed all slides anew.
    """
    from ncmi.slides.embedding import embed_slides, make_encoder

    made = make_encoder(encoder, weights, image_size=image_size, device=device)
    folder = out or tiles
    with output.SlideCounter("slides") as counter:
        results = embed_slides(
            tiles,
            slides,
            folder,
            made,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            overwrite=overwrite,
            on_slide=counter.done,
            on_patches=counter.patches,
        )
    output.print_left_out(results, folder / "embed_summary.csv")


def simulate(
    *,
    table: Path | None = None,
    out: Path = Path("simulation"),
    cohort: Literal["camelyon17", "bracs"] = "camelyon17",
    feature_dim: int = 1024,
    scale: float = 0.1,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Make a simulated cohort: features files with known truth, like CAMELYON-17's or BRACS' in sizes and lesions.

    It is named a simulation wherever it appears. docs/slides.md says what is simulated, and by which sources.
    The same command goes on where it was stopped.

    Args:
        table: CSV of the real slides, patients, centers and labels; by default one with the same counts.
        out: folder for features/, labels.csv and SIMULATION.json.
        cohort: which one.
        feature_dim: D_feat.
        scale: share of a real slide's patches that is made; 1 takes about 10 GB for CAMELYON-17.
        seed: of everything.
        workers: slides side by side; 0 for one a processor.
    """
    from ncmi.slides.simulation import SimulationOptions, write_simulation

    with output.SlideCounter("simulated slides") as counter:
        folder = write_simulation(
            out,
            table,
            SimulationOptions(cohort=cohort, feature_dim=feature_dim, scale=scale, seed=seed),
            workers=workers,
            on_slide=counter.advance,
        )
    output.say(f"simulation, {counter.count} slides: {folder / 'features'}   labels: {folder / 'labels.csv'}")


def check(data: BagData, *, seed: int = 0) -> None:
    """Read labels and features as a training would: classes, patients and bags of each part, and all that is wrong.

    Args:
        data: features, labels and split.
        seed: of the split.
    """
    from ncmi.data.bags.cohort import load_cohort
    from ncmi.data.bags.splits import split_cohort

    cohort = load_cohort(data)
    output.print_cohort(cohort, split_cohort(cohort, data, seed))


VERBS: dict[str, Callable[..., None]] = {"tile": tile, "embed": embed, "check": check, "simulate": simulate}
