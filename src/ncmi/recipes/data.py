"""Which data a run trains on, how it is split, and how its training part is damaged, if it is.

The kind of data is the type: :class:`TableData`, :class:`ImageData` or :class:`BagData`. :func:`ncmi.data.kind_of` sees
which of them a file or folder is.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ncmi.loss.forms import check_range

Kind = Literal["table", "image", "bags"]


@dataclass(frozen=True)
class Data:
    """What all kinds of data have in common.

    Attributes:
        name: embedded name (digits, wine, breast_cancer, iris), path, or name of a file below the data folder.
        validation_fraction: part of the data set; of what is outside its official test set, where it has one.
        test_fraction: part of the data set, where nothing else says what the test part is.
        split_seed: the split; by default the training seed, so that every seed has its own split.
        folds, fold: test on fold number ``fold`` of ``folds`` (stratified; of groups or patients whole); 0 folds for
            none.
        bad: what cannot be used: "error", or "skip", which lists and counts what is left out. Of tables: rows without
            a label and classes with too few rows to split; of images: files that are damaged or no images; of bags:
            slides whose features are missing, not finite, truncated, empty or of another width than most, or without
            label.
    """

    kind: ClassVar[Kind]

    name: str
    validation_fraction: float = 0.15
    test_fraction: float = 0.2
    split_seed: int | None = None
    folds: int = 0
    fold: int = 0
    bad: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        check_range(self, "validation_fraction", "test_fraction", least=0, below=1)
        check_range(self, "split_seed", least=0)
        if self.folds < 0 or self.folds == 1 or not 0 <= self.fold < max(self.folds, 1):
            raise ValueError(f"folds={self.folds}, fold={self.fold}: at least 2 folds, of which fold is one from 0 on")

    @property
    def title(self) -> str:
        """What tables, pages and folders call it."""
        return Path(self.name).stem if Path(self.name).suffix else Path(self.name).name

    def seed_of_split(self, training_seed: int) -> int:
        """The seed that the split of a run is drawn by."""
        return training_seed if self.split_seed is None else self.split_seed


@dataclass(frozen=True)
class SampleData(Data):
    """Tables and images: samples whose training part can be damaged to study robustness.

    Damage befalls the training part alone: first ``train_per_class``, then ``imbalance``, then ``label_noise``.
    Validation and test stay clean, and as balanced as they are. It is drawn by the split's seed, alike for every
    objective. Losses and read-outs (CC, LP, kNN) are given the wrong labels, as by one who has no others.

    Attributes:
        data_dir: folder to search for names; by default the environment variable NCMI_DATA.
        test: file or folder of the test part, like ``name``; nothing is then drawn from ``name`` to test on.
        validation: file or folder of the validation part, the same.
        train_per_class: train on so many samples of each class, drawn at random by the split's seed; None for all.
        train_on_all: train on the validation part as well. Nothing can be selected then: the last epoch is taken.
        imbalance: long tail: class c of C keeps imbalance^(−c/(C−1)) of the largest class's training samples, so that
            the last one has so many times fewer than the first (usual: 100); 1 for as the data is.
        label_noise: share of the training labels that are replaced by wrong ones, such as 0.4.
        noise_kind: "symmetric": any other class, each alike; "pair": class c becomes c + 1, and the last one 0.
    """

    data_dir: str | None = None
    test: str | None = None
    validation: str | None = None
    train_per_class: int | None = None
    train_on_all: bool = False
    imbalance: float = 1.0
    label_noise: float = 0.0
    noise_kind: Literal["symmetric", "pair"] = "symmetric"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "train_per_class", least=1)
        check_range(self, "imbalance", least=1, below=math.inf, cure="the largest class over the smallest, such as 100")
        check_range(self, "label_noise", least=0, below=1, cure="such as 0.4")


@dataclass(frozen=True)
class TableData(SampleData):
    """A table: rows with a label each, and columns of numbers, categories or dates. No group on two sides.

    How the file is read and what its columns are is decided by what is in it and told; each of these options settles
    one thing. Columns are named as in the header; where there is none, they are called column_1, column_2 and so on.
    A column may also be given by its number: 1 for the first, -1 for the last.

    Attributes:
        label_column: the column of the label.
        header: whether the first line names the columns; "auto" for by what is in it.
        separator: between fields: a sign, "tab" or "blanks".
        decimal: point or comma of decimal numbers.
        encoding: of the text, such as utf-8, utf-16 or latin-1.
        missing: further marks of missing values, besides the usual ones (nothing, ?, NA, N/A, nan, null, None, -).
        sheet: of a spreadsheet; by default the first.
        drop: columns to leave out.
        categorical: columns to take as categories, such as codes that are numbers.
        numeric: columns to take as numbers; what is no number in them is missing.
        id_column: column that names the rows; it is no feature, and predictions carry it.
        group_column: rows that belong together, such as those of one patient: they are never on two sides.
        split_column: column that says train, validation or test of each row.
        time_column: column of numbers or dates: the latest rows are the test part, the latest before them validation.
    """

    kind: ClassVar[Kind] = "table"

    label_column: str | None = None
    header: Literal["auto", "yes", "no"] = "auto"
    separator: str | None = None
    decimal: Literal["point", "comma"] | None = None
    encoding: str | None = None
    missing: tuple[str, ...] = ()
    sheet: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    id_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    time_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.folds > 0, self.test is not None, self.split_column is not None, self.time_column is not None]
        if sum(given) > 1:
            raise ValueError("folds, test, split_column and time_column each say what the test part is: give one")
        if both := set(self.categorical) & set(self.numeric):
            raise ValueError(f"column {min(both)!r} is named in categorical and in numeric: name it in one of them")


@dataclass(frozen=True)
class ImageData(SampleData):
    """Images of one size, or scaled to it: arrays, folders of files, or shards (see ``ncmi data shard``).

    Attributes:
        label_column: name of the labels' array in an .npz, or of the labels' column in a table of image files, where
            it is not called label, class, target or y.
        images: folder that the files named in such a table lie in; by default the table's own.
        image_size: side in pixels to which the images of a folder, or those of CIFAR, are scaled.
        memory_gigabytes: the images of a folder are kept in memory where their pixels take no more than that; else they
            are decoded anew each time, ahead of their use.
        test_size: of shards: side to which images are scaled where nothing is trained on them; by default image_size.
        crop_fraction: of shards: the part of an image's shorter side that is seen where nothing is cropped at random.
        readers: of shards: processes that read and decode for each device; by default the machine's processors shared
            among its devices, 16 at most.
        broken_limit: of shards: so many broken images may be replaced in training and left out where images are
            judged, in each process; with one more the run stops.
        shard_window: of shards elsewhere (s3://…, https://…): so many are fetched and shuffled together.
    """

    kind: ClassVar[Kind] = "image"

    label_column: str | None = None
    images: str | None = None
    image_size: int = 32
    memory_gigabytes: float = 1.0
    test_size: int | None = None
    crop_fraction: float = 0.875
    readers: int | None = None
    broken_limit: int = 100
    shard_window: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "image_size", "test_size", "shard_window", least=1)
        check_range(self, "memory_gigabytes", "readers", "broken_limit", least=0)
        check_range(self, "crop_fraction", above=0, most=1)


@dataclass(frozen=True)
class BagData(Data):
    """Bags of instances, such as slides of patches: features, labels, and how they are split. No group on two sides.

    The test part is, in this order of precedence: ``fold`` of ``folds``; the slides whose ``holdout_column`` holds one
    of ``holdout``; what ``split_column`` or ``splits`` say; a random part of the patients.

    Attributes:
        name: folder of one .h5, .pt or .npz file a slide, or one .h5 or .npz file of a whole cohort.
        labels: CSV or spreadsheet with one row a slide, or a patient; None where the features' file holds the labels.
        slide_column, patient_column, label_column: columns of that table; by default guessed by their usual names.
            Without a column of patients each slide is a patient of its own, but for names that are barcodes.
        slide_table: table with the columns slide and patient, where ``labels`` has one row a patient and the slides'
            names do not begin with the patients'.
        unit: what is a bag and has a label: each "slide", or each "patient", whose slides are joined to one bag. With
            slides, a patient's decision is the mean of its slides' probabilities, where they share a label.
        classes: names of the classes in their order; by default those that occur, in order of their names.
        features_key, coords_key: names of the data sets in a features file; by default guessed.
        split_column: column that says train, val or test of each slide, such as BRACS' own; with ``folds``, one that
            says the number of each slide's fold.
        splits: CSV with columns train, val, test, each a list of slides, as CLAM writes; with ``folds``, the folder of
            splits_0.csv, splits_1.csv …, a path with ``{fold}`` in it, or STAMP's splits.json.
        holdout_column, holdout: test on the slides with these values, such as center and 3 4.
        patient_overlap: where given splits put a patient on two sides: "error", or "drop" the patient's slides from
            training, or from training and validation where the other side is test.
        standardize: scale each feature by its mean and spread over the instances of the training part; for features
            of unlike units, such as measured descriptors.
        train_instances: train on so many instances of a bag, drawn anew each time; 0 for all.
        cache_gigabytes: keep the cohort in memory where its features take no more than that.
        attention_slides: of so many test slides the attention is kept: the surest right and wrong ones of each class.
    """

    kind: ClassVar[Kind] = "bags"

    labels: str | None = None
    slide_column: str | None = None
    patient_column: str | None = None
    label_column: str | None = None
    slide_table: str | None = None
    unit: Literal["slide", "patient"] = "slide"
    classes: tuple[str, ...] = ()
    features_key: str | None = None
    coords_key: str | None = None
    split_column: str | None = None
    splits: str | None = None
    holdout_column: str | None = None
    holdout: tuple[str, ...] = ()
    patient_overlap: Literal["error", "drop"] = "error"
    standardize: bool = False
    train_instances: int = 0
    cache_gigabytes: float = 1.0
    attention_slides: int = 8

    @property
    def title(self) -> str:
        """What to call the cohort: its file or folder, or the one above where that is called features or the like."""
        path = Path(self.name)
        generic = path.stem in ("features", "h5_files", "pt_files", "h5", "pt")
        return path.resolve().parent.name if generic else path.stem

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "train_instances", "cache_gigabytes", "attention_slides", least=0)
        if repeated := [name for name in dict.fromkeys(self.classes) if self.classes.count(name) > 1]:
            raise ValueError(f"classes={self.classes}: {repeated[0]!r} is named twice: name each class once")
        if bool(self.holdout) != (self.holdout_column is not None):
            raise ValueError("holdout_column and holdout belong together: give the column and the values to test on")
