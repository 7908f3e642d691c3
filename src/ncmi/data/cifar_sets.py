"""What CIFAR-10 and CIFAR-100 are: class names, counts, the files of each layout, known checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOME = "www.cs.toronto.edu/~kriz/cifar.html"
SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
MODIFIED = "give smaller or modified sets (other labels, fewer images) as .npz or as a folder of images"


@dataclass(frozen=True)
class Layout:
    """File names of one layout: the folder and archive as published, data files, file of class names."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        """All data files, training files first."""
        return (*self.train, self.test)


@dataclass(frozen=True)
class CifarSet:
    """One of the two sets.

    Args:
        title: what messages call it.
        class_names: in order of the labels.
        label_key: key of the labels in the pickles; without the final s the column of the Parquet layout.
        names_key: key of the class names in the pickles.
        coarse_classes: number of superclasses; 0 where there are none.
        counts: records in each part, train and test.
        content: checksums of the parts as :func:`ncmi.data.cifar.content_sum` makes them; ``None`` if unknown.
        md5: published MD5 sums of the original pickles: a file with its sum is right whatever ``content`` says.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    label_key: str
    names_key: str
    coarse_classes: int
    python: Layout
    binary: Layout
    counts: tuple[int, int] = (50_000, 10_000)
    content: tuple[str, str] | None = None
    md5: Mapping[str, str] = field(default_factory=dict)

    @property
    def label_column(self) -> str:
        """Column of the labels in the Parquet layout."""
        return self.label_key.removesuffix("s")

    def count(self, file: str) -> int:
        """Records in a data file of the python or binary layout."""
        if file in (self.python.test, self.binary.test):
            return self.counts[1]
        return self.counts[0] // len(self.python.train)


_NAMES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
_NAMES_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR_SETS = {
    "cifar10": CifarSet(
        name="cifar10",
        title="CIFAR-10",
        class_names=tuple(_NAMES_10.split()),
        label_key="labels",
        names_key="label_names",
        coarse_classes=0,
        python=Layout(
            "cifar-10-batches-py",
            "cifar-10-python.tar.gz",
            tuple(f"data_batch_{i}" for i in range(1, 6)),
            "test_batch",
            "batches.meta",
        ),
        binary=Layout(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test_batch.bin",
            "batches.meta.txt",
        ),
    ),
    "cifar100": CifarSet(
        name="cifar100",
        title="CIFAR-100",
        class_names=tuple(_NAMES_100.split()),
        label_key="fine_labels",
        names_key="fine_label_names",
        coarse_classes=20,
        python=Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "meta"),
        binary=Layout(
            "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", "fine_label_names.txt"
        ),
        # measured: the images and labels published in 2009, from a copy stored without loss
        content=("749f102036837502545722c5ef8621c1", "5591f7f24fd1c1b69f3cfec182975831"),
        md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    ),
}
