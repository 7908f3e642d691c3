"""CIFAR-10 and CIFAR-100 in the layouts that users have, checked against what is known of them."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ncmi.data.cifar_files import AGAIN, Files, Folder, Records, open_archive, read_file, read_names
from ncmi.data.cifar_find import FoundCifar
from ncmi.data.cifar_parquet import parquet_names, parquet_parts, read_parquet
from ncmi.data.cifar_sets import IMAGE_BYTES, MODIFIED, SIDE, CifarSet
from ncmi.data.dataset import Dataset

CHUNK = 2048


def load_cifar(found: FoundCifar, image_size: int = SIDE) -> Dataset:
    """CIFAR-10 or CIFAR-100: all training images, then all test images, which are the fixed test set.

    Records keep the order of the files. Of CIFAR-100, 10 test images also occur in the training set, 6 of them
    with another label; they stay, since published accuracies are measured with them.

    Args:
        found: where the data lies, from :func:`ncmi.data.cifar_find.cifar_at`.
        image_size: 32, or a divisor of it; then blocks of pixels are averaged, rounded to nearest, halves up.

    Returns:
        ``inputs [60000, 3, image_size, image_size]`` uint8, ``labels [60000]`` int64 (the 100 fine classes of
        CIFAR-100), ``fixed_test`` the last 10,000.

    Raises:
        ValueError: naming the file and the cure, for missing, truncated or damaged files, labels out of range,
            contents other than CIFAR-100's, an image size that does not divide 32.
    """
    if image_size < 1 or SIDE % image_size:
        raise ValueError(f"image_size={image_size}: CIFAR's images have 32×32 pixels; choose 32, 16 or 8")
    cifar = found.cifar
    train, test, names = _parts(found)
    labels = np.concatenate([part.labels for part in (train, test)])
    # the known data has one spelling of its names; the hub's description of CIFAR-100 says 'cra' for crab
    class_names = cifar.class_names if cifar.content is not None else names or cifar.class_names
    images = _images(train, test, image_size)
    fixed_test = torch.arange(len(train.labels), len(labels))
    return Dataset(cifar.name, images, torch.from_numpy(labels), class_names, "image", fixed_test=fixed_test)


def content_sum(labels: npt.NDArray[np.int64], images: npt.NDArray[np.uint8]) -> str:
    """A checksum of records that does not depend on their order, 32 hexadecimal digits.

    The sum, modulo 2¹²⁸, of each record's BLAKE2b digest of 128 bits over its 3,072 pixels and its label (one
    byte). Copies of CIFAR come in different orders and containers; their records are the same.

    Args:
        labels: ``[n]``, each below 256.
        images: ``[n, 3072]``.

    Example:
        >>> images = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072) // 7
        >>> labels = np.array([0, 1])
        >>> content_sum(labels, images) == content_sum(labels[::-1], images[::-1])
        True
    """
    total = 0
    for start in range(0, len(labels), CHUNK):
        pixels = images[start : start + CHUNK].tobytes()
        for i, label in enumerate(labels[start : start + CHUNK].astype(np.uint8).tolist()):
            digest = hashlib.blake2b(pixels[i * IMAGE_BYTES : (i + 1) * IMAGE_BYTES], digest_size=16)
            digest.update(bytes((label,)))
            total += int.from_bytes(digest.digest(), "little")
    return f"{total % 2**128:032x}"


def _parts(found: FoundCifar) -> tuple[Records, Records, tuple[str, ...] | None]:
    cifar = found.cifar
    if found.layout == "parquet":
        shards = parquet_parts(list(found.path.iterdir()))
        train, test = (read_parquet(part, cifar, count) for part, count in zip(shards, cifar.counts, strict=True))
        names = parquet_names(shards[0][0], cifar)
        _check_content(cifar, (train, test), None)
        return train, test, names
    layout = cifar.python if found.layout.startswith("python") else cifar.binary
    files = open_archive(found.path, cifar) if found.layout.endswith("archive") else Folder(found.path)
    names = read_names(files, cifar, layout)
    parts = [read_file(files, name, cifar, layout) for name in layout.files]
    train = Records(np.concatenate([p.labels for p in parts[:-1]]), np.concatenate([p.images for p in parts[:-1]]))
    _check_content(cifar, (train, parts[-1]), files)
    return train, parts[-1], names


def _check_content(cifar: CifarSet, parts: tuple[Records, Records], files: Files | None) -> None:
    if cifar.content is None:
        return
    for name, part, expected in zip(("train", "test"), parts, cifar.content, strict=True):
        actual = content_sum(part.labels, part.images)
        if actual == expected or (files is not None and _is_original(files, name, cifar)):
            continue
        raise ValueError(
            f"the {name} part is damaged: checksum {actual} of its images and labels differs from {expected}, that "
            f"of {cifar.title}; {AGAIN}; {MODIFIED}"
        )


def _is_original(files: Files, name: str, cifar: CifarSet) -> bool:
    """Whether a file has the MD5 sum that was published with the data."""
    if name not in cifar.md5 or files.size(name) is None:
        return False
    return hashlib.md5(files.read(name), usedforsecurity=False).hexdigest() == cifar.md5[name]


def _images(train: Records, test: Records, image_size: int) -> Tensor:
    """All images ``[n, 3, image_size, image_size]``, in chunks: the data is held no more than twice."""
    count, block = len(train.labels) + len(test.labels), SIDE // image_size
    images = torch.empty(count, 3, image_size, image_size, dtype=torch.uint8)
    at = 0
    for part in (train, test):
        for start in range(0, len(part.labels), CHUNK):
            pixels = np.array(part.images[start : start + CHUNK])  # a copy: the bytes of a file are read-only
            chunk = torch.from_numpy(pixels).view(-1, 3, SIDE, SIDE)
            if block > 1:  # exact in float32: sums below 2¹⁸, divided by a power of 2
                chunk = (F.avg_pool2d(chunk.float(), block) + 0.5).floor().to(torch.uint8)
            images[at : at + len(chunk)] = chunk
            at += len(chunk)
    return images
