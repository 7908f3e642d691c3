"""Data sets: where they are, how they are read, split, standardised, varied and put in order."""

from ncmi.data.augment import augment_images, augment_table
from ncmi.data.batches import batch_slices, epoch_order, process_shares
from ncmi.data.damage import long_tail, noisy_labels
from ncmi.data.dataset import Dataset, Kind
from ncmi.data.embedded import EMBEDDED
from ncmi.data.load import load_dataset
from ncmi.data.splits import Split, split_dataset
from ncmi.data.standardise import Standardiser
from ncmi.data.unlabelled import load_unlabelled

__all__ = [
    "EMBEDDED",
    "Dataset",
    "Kind",
    "Split",
    "Standardiser",
    "augment_images",
    "augment_table",
    "batch_slices",
    "epoch_order",
    "load_dataset",
    "load_unlabelled",
    "long_tail",
    "noisy_labels",
    "process_shares",
    "split_dataset",
]
