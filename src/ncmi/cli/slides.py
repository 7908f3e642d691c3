"""The verbs of ``ncmi slides``: from slides to features, and a look at a cohort. None imports torch before it runs.

What is done with features (train, compare, predict, report) is done by the verbs of all kinds of data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ncmi.cli import output
from ncmi.recipes import BagData

_SHOWN = 5  # notes on attention that are printed


def tile(
    slides: Path,
    *,
    out: Path = Path("tiles"),
    mpp: float = 0.5,
    patch_size: int = 256,
    overlap: int = 0,
    min_tissue: float = 0.25,
    slide_mpp: float | None = None,
    slide_mpps: Path | None = None,
    upsample: bool = False,
    min_region: float = 0.02,
    max_hole: float = 0.02,
    edge: bool = False,
    max_patches: int = 0,
    pen: bool = True,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Find the tissue on slides and lay a grid over it: a coordinates file and a thumbnail for each slide.

    The same command goes on where it was stopped. Broken slides are listed and left out.

    Args:
        slides: folder of slides, in any format that OpenSlide reads, or of PNG or JPEG images, searched with its
            subfolders.
        out: folder for coords/, thumbnails/ and summary.csv.
        mpp: microns per pixel of the patches: 0.5 is 20×, 0.25 is 40×.
        patch_size: side of a patch in pixels at that resolution.
        overlap: pixels that neighboring patches share.
        min_tissue: least share of tissue in a patch.
        slide_mpp: microns per pixel of the slides whose files do not say it.
        slide_mpps: CSV with the columns slide and mpp: microns per pixel of these slides, whatever their files say.
        upsample: allow patches of a finer resolution than the slide has.
        min_region: mm² of the smallest region of tissue that counts; small biopsies and cell blocks need less.
        max_hole: mm² of the largest hole in tissue that is counted as tissue.
        edge: also take patches that reach over the slide's right and lower edge (what is beyond is background).
        max_patches: most patches of a slide, spread evenly over its tissue; 0 for all.
        pen: leave out green and deep blue ink (--no-pen for such stains). Red and violet ink has the colors of H&E and
            is not told from tissue: see the thumbnails.
        workers: slides side by side; 0 for one a processor.
        overwrite: tile all slides anew.
    """
    from ncmi.slides.tiling import TilingSettings, read_mpps, tile_slides
    from ncmi.slides.tiling.slide_file import pictures_beside_slides

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
                min_region_mm2=min_region,
                max_hole_mm2=max_hole,
                edge=edge,
                max_patches=max_patches,
                pen=pen,
            ),
            mpps=None if slide_mpps is None else read_mpps(slide_mpps),
            workers=workers,
            overwrite=overwrite,
            on_slide=counter.done,
        )
    if pictures := pictures_beside_slides(slides):
        output.say(
            f"{len(pictures)} PNG or JPEG images beside the slides are taken for thumbnails ({pictures[0].name} …): "
            "where they are slides, bring them into a folder of their own"
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
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    stain: Literal["none", "macenko", "reinhard"] = "none",
    stain_target: Path | None = None,
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
        mean: of red, green and blue in 0 … 1, by which patches are normalized, e.g. 0.48 0.46 0.41; by default the
            encoder's own, or ImageNet's. What is used is printed, and written into the features' files.
        std: the same, their standard deviations.
        stain: bring each patch to the colors of a target first (needs ncmi[stain]); written into the features' files,
            and features of another normalization are taken for those of another encoder.
        stain_target: image of a patch in the colors wanted; by default Macenko's reference (reinhard needs one).
        batch_size: patches at a time.
        workers: threads that read patches; 0 for one a processor.
        device: cpu or cuda.
        precision: of the features in the file.
        overwrite: embed all slides anew.
    """
    from ncmi.slides.embedding import embed_slides, make_encoder

    if stain == "none" and stain_target is not None:
        raise ValueError("--stain-target: say by which method (--stain macenko or reinhard), or leave it out")
    made = make_encoder(encoder, weights, image_size=image_size, mean=mean, std=std, device=device)
    normalized = None
    if stain != "none":
        from ncmi.slides.embedding.stain import StainNormalized

        made = normalized = StainNormalized(made, stain, stain_target, workers=workers)
    output.say_on_the_way(f"encoder {made.name}: {made.version}")
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
    if normalized is not None and normalized.unchanged:
        kept = f"{normalized.unchanged:,} of {normalized.patches:,} patches"
        output.say(f"{kept} kept their colors: too little stain to normalize")
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


def attend(
    run: Path,
    features: Path,
    *,
    out: Path = Path("attention"),
    only: tuple[str, ...] = (),
    slides: Path | None = None,
    tiles: Path | None = None,
    slide_mpp: float | None = None,
    slide_table: Path | None = None,
    top: int = 8,
    color: Literal["even", "percentile"] = "even",
    in_report: bool = False,
    overwrite: bool = False,
) -> None:
    """The attention of a run over any slides: overlay, GeoJSON for QuPath, CSV by patch, top patches, a page with zoom.

    Args:
        run: the run folder, finished.
        features: of the slides, made by the encoder of the training slides; labels are not needed.
        out: folder to write: a folder for each slide, and slides.csv.
        only: names of the slides; by default all.
        slides: folder of the slides, for pictures below the heat map and of the patches.
        tiles: folder that `ncmi slides tile` wrote, for its thumbnails where the slides are not at hand.
        slide_mpp: microns per pixel of level 0, where places are in microns (STAMP) and the slide does not say it or is
            not at hand.
        slide_table: CSV with the columns slide and patient, for a run whose bags are patients; by default barcodes say
            it. The attention over a patient is written slide by slide.
        top: so many patches of highest attention are shown as pictures.
        color: by multiples of an even share, or by percentile among the slide's patches.
        in_report: also keep the attention in the run folder, for `ncmi report` of the run's slides.
        overwrite: replace what an earlier call wrote.
    """
    from ncmi.data.bags.bag import BagError, BagSource
    from ncmi.data.bags.patients import JoinedBags
    from ncmi.data.bags.readers import open_bags
    from ncmi.errors import listing
    from ncmi.files import check_writable
    from ncmi.report.attention import Sources, attention_of
    from ncmi.report.slide_files import OVERLAY, write_slide, write_slides_table
    from ncmi.training.bags import attend_bags, unknown_encoder
    from ncmi.training.model import load_model
    from ncmi.training.run_folder import RunFolder, write_arrays

    model, data = load_model(run), RunFolder.open(run).recipe().data
    if not isinstance(data, BagData):
        raise ValueError(f"{run}: a run on {data.kind} data, which has no attention: give a run on features of slides")
    if top < 0:
        raise ValueError(f"--top {top}: give 0 or more")
    if out.resolve() in (run.resolve(), features.resolve()):
        raise ValueError(f"--out {out} is the run, or the features' folder: choose another")
    pictures = Sources(slides, tiles, slide_mpp, thumbnail=OVERLAY, patch=224)
    source: BagSource = open_bags(features, features_key=data.features_key, coords_key=data.coords_key)
    if unknown := sorted(set(only) - set(source.names)):
        raise BagError(f"{features}: no slide {listing(unknown, 5)} (--only); there is {listing(source.names, 5)}")
    names = bags = tuple(name for name in source.names if not only or name in only)
    who: tuple[str, ...] = ()
    if data.unit == "patient":
        joined, note = JoinedBags.by_patient(
            [source], slide_table, slide_column=data.slide_column, patient_column=data.patient_column
        )
        patients = {slide: patient for patient, slides in joined.slides.items() for _, slide in slides}
        source, bags, who = joined, tuple(sorted({patients[name] for name in names})), (note,)
    elif slide_table is not None:
        raise ValueError(f"--slide-table: the bags of {run} are slides, not patients: leave it out")
    earlier = [out / name for name in names if (out / name).exists()]
    if earlier and not overwrite:
        raise FileExistsError(f"{earlier[0]} exists: choose another --out, or give --overwrite")
    check_writable(out / "slides.csv")
    classes = model.signature.class_names
    left_out: list[tuple[str, str]] = []
    rows: list[dict[str, str]] = []
    slides_by_note: dict[str, list[str]] = {}
    with output.SlideCounter("slides") as counter:
        for bag in attend_bags(model, source, bags, on_bad=lambda name, reason: left_out.append((name, reason))):
            if bag.name not in names:  # another slide of the patient
                continue
            weights, picture = pictures.look(attention_of(bag.name, bag.arrays), top)
            shares = dict(zip(classes, bag.probabilities.tolist(), strict=True))
            decided = max(shares, key=shares.__getitem__)
            sentences = [f"Decided for {decided}, p = {shares[decided]:.3f}."]
            if weights.patient:
                of_patient = f"{weights.share:.1%} of the attention over its patient, {weights.patient}"
                sentences.append(f"The slide has {of_patient}, whose decision it is.")
            notes = write_slide(
                out / bag.name, weights, picture, coloring=color, sentences=sentences, probabilities=shares
            )
            for note in notes:
                slides_by_note.setdefault(note, []).append(bag.name)
            if in_report:
                write_arrays(run / "attention" / f"{bag.name}.npz", bag.arrays)
            about = {"patches": len(weights.values), "effective_patches": f"{weights.effective:.6g}"}
            if weights.patient:
                about |= {"patient": weights.patient, "share": f"{weights.share:.6g}"}
            row = {"slide": bag.name, "prediction": decided, "probability": f"{shares[decided]:.6g}", **about}
            rows.append({name: str(value) for name, value in row.items()} | {"notes": "; ".join(notes)})
            counter.advance(bag.name)
    write_slides_table(out / "slides.csv", rows)
    shown = list(slides_by_note.items())[:_SHOWN]
    lines = [f"{listing(each, 3)}: {note}" for note, each in shown]
    if more := len(slides_by_note) - len(shown):
        lines.append(f"{more} other notes: see {out / 'slides.csv'}")
    for line in (*who, *unknown_encoder(model, source, bags), *lines):
        output.say(line)
    output.print_faults(left_out)
    output.say(f"{len(rows)} slides: {out}")


VERBS: dict[str, Callable[..., None]] = {
    "tile": tile,
    "embed": embed,
    "check": check,
    "attend": attend,
    "simulate": simulate,
}
