"""What a run decides wrongly on its test part, kept in its folder: a table, and small pictures of images."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ncmi.files import inert_cell, write_atomically
from ncmi.training.schema import MISTAKES

PICTURES = "misclassified"
"""Name of the folder of pictures, which are called by the numbers of the rows."""
MOST_ROWS, MOST_PICTURES = 1000, 20
_MOST_CLASSES = 100
_SIDE = 96


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Samples that are decided wrongly, the surest first.

    Attributes:
        rows: their places in the part, ``[M]``, at most 1,000.
        total: how many there are.
        probabilities: ``[M, C]``.
        labels: ``[M]``.
    """

    rows: Tensor
    total: int
    probabilities: Tensor
    labels: Tensor


def find_mistakes(log_p: Tensor, labels: Tensor, most: int = MOST_ROWS) -> Mistakes:
    """The samples whose highest log-probability of ``log_p [N, C]`` is not at ``labels [N]``, the surest first.

    >>> import torch
    >>> find_mistakes(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]).log(), torch.tensor([1, 1, 1])).rows.tolist()
    [0, 1]
    """
    highest, decided = log_p.max(1)
    wrong = (decided != labels).nonzero().squeeze(1)
    order = highest[wrong].argsort(descending=True, stable=True)[:most]
    rows = wrong[order]
    return Mistakes(rows.cpu(), len(wrong), log_p[rows].double().exp().cpu(), labels[rows].cpu())


def write_mistakes(folder: Path, mistakes: Mistakes, names: Sequence[str], class_names: Sequence[str]) -> None:
    """Write ``misclassified.csv``: sample, label, prediction, probability, of the label too, and of up to 100 classes.

    Names are written so that no spreadsheet takes them for a formula.

    Args:
        folder: of the run.
        mistakes: what to write.
        names: of the samples of ``mistakes.rows``.
        class_names: of the C classes.
    """
    every = class_names if len(class_names) <= _MOST_CLASSES else ()
    heading = ["sample", "label", "prediction", "probability", "probability_of_label"]

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*heading, *(inert_cell(f"p({name})") for name in every)])
            for name, label, row in zip(names, mistakes.labels.tolist(), mistakes.probabilities.tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                words = map(inert_cell, (name, class_names[label], class_names[best]))
                numbers = (row[best], row[label], *(row if every else ()))
                writer.writerow([*words, *(f"{number:.6g}" for number in numbers)])

    write_atomically(folder / MISTAKES, write)


def write_pictures(folder: Path, images: Tensor) -> None:
    """Write images ``[M, channels, H, W]`` (uint8) as PNG of at most 96 pixels, called 0.png, 1.png and so on."""
    from PIL import Image

    (folder / PICTURES).mkdir(exist_ok=True)
    for number, image in enumerate(images):
        # one channel is gray; of more than three the first three are shown
        channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
        picture = Image.fromarray(channels.permute(1, 2, 0).contiguous().cpu().numpy())
        picture.thumbnail((_SIDE, _SIDE))
        write_atomically(folder / PICTURES / f"{number}.png", lambda path, picture=picture: picture.save(path, "PNG"))  # type: ignore[misc]
