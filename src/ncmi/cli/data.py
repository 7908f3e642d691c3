"""The verbs of ``ncmi data``: large folders of images made into shards. None imports torch before it runs."""

from collections.abc import Callable
from pathlib import Path

from ncmi.cli import output


def shard(
    images: Path,
    *,
    out: Path = Path("shards"),
    short_side: int = 256,
    quality: int = 90,
    images_per_shard: int = 5000,
    workers: int = 0,
) -> None:
    """Make shards of many images: tars in WebDataset's format, with an index of places, labels and checksums.

    The same command goes on where it was stopped, to the same bytes. Broken images are left out and listed in
    broken.csv. Then: ncmi train SHARDS, or compare, as with a folder of images.

    Args:
        images: folder of images with one subfolder for each class, also below train and val; folder or file of Parquet
            with images and labels; or of tars, such as ImageNet's own.
        out: folder of the shards.
        short_side: images whose shorter side has more pixels are scaled to it; 0 keeps all as they are.
        quality: of these as JPEG, 1 to 100; other images keep their bytes.
        images_per_shard: how many lie in one tar.
        workers: processes side by side; 0 for one a processor.
    """
    from ncmi.data.shards.write import BROKEN_FILE, write_shards
    from ncmi.errors import naming
    from ncmi.training.workers import check_workers, processors

    check_workers(workers)
    with output.ImageCounter() as counter, naming(images):
        if not images.exists():
            raise FileNotFoundError(f"{images} does not exist: give a folder of images, or files of Parquet or tar")
        record = write_shards(
            images,
            out,
            short_side=short_side,
            quality=quality,
            images_per_shard=images_per_shard,
            workers=workers or processors(),
            progress=counter.show,
        )
    size = sum(each.size for each in record.shards)
    output.say(
        f"{record.images:,} images of {len(record.classes):,} classes in {len(record.shards)} shards, "
        f"{size / 1e9:.2f} GB: {out}"
    )
    for note in record.notes:
        output.say(note)
    if record.broken:
        output.say(f"left out: {record.broken:,} broken images and folders, with reasons in {out / BROKEN_FILE}")


VERBS: dict[str, Callable[..., None]] = {"shard": shard}
