"""One slide's patches to its features file."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ncmi.slides.embedding.encoder import Encoder, EncoderError
from ncmi.slides.embedding.features_file import EmbedError, Precision, write_features
from ncmi.slides.embedding.patch_batches import patch_batches
from ncmi.slides.embedding.result import EmbedResult
from ncmi.slides.embedding.work_list import Work
from ncmi.slides.tiling.coords_file import Coords, CoordsError
from ncmi.slides.tiling.slide_file import Slide, SlideError

_SIZE = ("level0_width", "level0_height")


@dataclass(frozen=True)
class Settings:
    """How slides are embedded; see :func:`ncmi.slides.embedding.embed_slides`."""

    encoder: Encoder
    batch_size: int
    workers: int
    precision: Precision
    on_patches: Callable[[str, int, int], None]


def embed_slide(work: Work, path: Path, settings: Settings) -> EmbedResult:
    """Write a features file, whole or not at all.

    A slide that cannot be read or encoded is a result like any other, with its reason.

    Raises:
        OSError: if the file cannot be written.
    """
    start = time.perf_counter()
    try:
        coords = work.read_coords()
        if work.path is None:
            raise EmbedError(
                f"{work.coords}: there is no slide {work.slide} in the folder of slides: add it, or remove this file"
            )
        if not len(coords):
            return EmbedResult(work.slide, "no patches", reason=f"{work.coords}: holds no patches: see its thumbnail")
        with Slide(work.path) as slide:
            _check_size(slide, coords)
            # closed before the slide, from which its threads read
            with closing(_features(slide, coords, work.slide, settings)) as features:
                write_features(path, coords, settings.encoder, features, settings.precision)
    except (CoordsError, SlideError, EmbedError, EncoderError) as error:
        return EmbedResult(work.slide, "failed", reason=str(error), seconds=time.perf_counter() - start)
    except MemoryError:
        reason = f"{work.path}: out of memory: give a smaller batch_size, or smaller patches"
        return EmbedResult(work.slide, "failed", reason=reason, seconds=time.perf_counter() - start)
    return EmbedResult(work.slide, "embedded", len(coords), seconds=time.perf_counter() - start)


def _features(slide: Slide, coords: Coords, name: str, settings: Settings) -> Generator[Tensor, None, None]:
    """Features ``[b, D]`` of one batch after the other."""
    encoder, done = settings.encoder, 0
    with closing(patch_batches(slide, coords, settings.batch_size, settings.workers)) as batches:
        for batch in batches:
            features = encoder.encode(torch.from_numpy(batch))
            shape = (len(batch), encoder.feature_dim)
            if tuple(features.shape) != shape:
                what = f"{encoder.name} returned {list(features.shape)}, not {list(shape)}"
                raise EncoderError(f"{what}: its encode must give one row of feature_dim values a patch")
            done += len(batch)
            del batch  # before the next one is read
            yield features
            settings.on_patches(name, done, len(coords))


def _check_size(slide: Slide, coords: Coords) -> None:
    """Reject coordinates that are not of this slide."""
    said = tuple(coords.attributes.get(key, own) for key, own in zip(_SIZE, slide.size, strict=True))
    last = tuple(int(value) for value in coords.xy.max(0))
    own = "{} by {} pixels".format(*slide.size)
    if said != slide.size:
        raise EmbedError(f"{slide.path}: has {own}, its coordinates are of {said[0]} by {said[1]}: tile this slide")
    side = max(coords.patch_size, coords.patch_size_level0)
    if side > max(slide.size):
        raise EmbedError(f"{slide.path}: has {own}, less than a patch, whose side is {side}: tile this slide")
    # a patch may reach over the border, where CLAM pads
    if last[0] >= slide.size[0] or last[1] >= slide.size[1]:
        raise EmbedError(f"{slide.path}: has {own}, its coordinates go to {last}: tile this slide")
