"""The recipe of a slide classifier: which features and labels, which network, objective, training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ncmi.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes.recipe import Training

NetworkName = Literal["abmil", "transmil", "aem", "asmil", "mean", "max"]


def slide_training() -> Training:
    """How slide classifiers are usually trained: AdamW 1e-4, weight decay 1e-5, one slide a step, cosine, 50 epochs."""
    return Training(
        epochs=50,
        batch_size=1,
        learning_rate=1e-4,
        weight_decay=1e-5,
        schedule="cosine",
        selection="best",
        centroid_learning_rate=1e-4,
    )


@dataclass(frozen=True)
class SlideData:
    """Which bags of features, their labels, and how they are split. No patient ever stands on two sides.

    The test part is, in this order of precedence: ``fold`` of ``folds``; the slides whose ``holdout_column`` holds one
    of ``holdout``; what ``split_column`` or ``splits`` say; a random part of the patients.

    Attributes:
        features: folder of one .h5, .pt or .npz file a slide, or one .h5 or .npz file of a whole cohort.
        labels: CSV with one row a slide; None where the features' file holds the labels.
        slide_column, patient_column, label_column: columns of that CSV; by default guessed by their usual names.
            Without a column of patients each slide is a patient of its own.
        classes: names of the classes in their order; by default those that occur, in order of their names.
        features_key, coords_key: names of the data sets in a features file; by default guessed.
        split_column: column that says train, val or test of each slide, such as BRACS' own.
        splits: CSV with columns train, val, test, each a list of slides, as CLAM writes.
        holdout_column, holdout: test on the slides with these values, such as center and 3 4.
        folds, fold: test on fold number ``fold`` of ``folds`` (stratified, by patient); 0 folds for none.
        validation_fraction: part of the patients outside the test part; 0 for none, and the last epoch is taken.
        test_fraction: part of the patients, where nothing else says what the test part is.
        split_seed: of folds and random parts; by default the training seed.
        patient_overlap: where given splits put a patient on two sides: "error", or "drop" the patient's slides from
            training, or from training and validation where the other side is test.
        standardise: scale each feature by its mean and spread over the instances of the training part; for features
            of unlike units, such as measured descriptors.
        bad: slides that cannot be used (features missing, not finite, truncated, of another width than most; an empty
            bag; no label): "error", or "skip", which lists and counts what is left out. Either way all features are
            read once before training.
        train_instances: train on so many instances of a bag, drawn anew each time; 0 for all.
        cache_gigabytes: keep the cohort in memory where its features take no more than that.
    """

    features: str
    labels: str | None = None
    slide_column: str | None = None
    patient_column: str | None = None
    label_column: str | None = None
    classes: tuple[str, ...] = ()
    features_key: str | None = None
    coords_key: str | None = None
    split_column: str | None = None
    splits: str | None = None
    holdout_column: str | None = None
    holdout: tuple[str, ...] = ()
    folds: int = 0
    fold: int = 0
    validation_fraction: float = 0.15
    test_fraction: float = 0.2
    split_seed: int | None = None
    patient_overlap: Literal["error", "drop"] = "error"
    standardise: bool = False
    bad: Literal["error", "skip"] = "error"
    train_instances: int = 0
    cache_gigabytes: float = 1.0

    @property
    def name(self) -> str:
        """What to call the cohort: its file or folder, or the one above where that is called features or the like."""
        path = Path(self.features)
        generic = path.stem in ("features", "h5_files", "pt_files", "h5", "pt")
        return path.resolve().parent.name if generic else path.stem

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1 or not 0 <= self.fold < max(self.folds, 1):
            raise ValueError(f"folds={self.folds}, fold={self.fold}: at least 2 folds, of which fold is one from 0 on")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0 and below 1")
        if self.train_instances < 0 or self.cache_gigabytes < 0:
            raise ValueError("train_instances and cache_gigabytes must be at least 0")
        if bool(self.holdout) != (self.holdout_column is not None):
            raise ValueError("holdout_column and holdout belong together: give the column and the values to test on")


@dataclass(frozen=True)
class BagNetwork:
    """The network that makes a slide's feature of its patches' features; see :mod:`ncmi.backbones.bags`.

    Attributes:
        name: "abmil", "transmil", "aem", "asmil", or the floors "mean" and "max".
        width: d of the first layer Linear(D_feat → d) + ReLU; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.
        attention_dim: hidden width of ABMIL's attention.
        gated: ABMIL with gated attention.
        heads: of attention in TransMIL, AEM and ASMIL.
        landmarks: of TransMIL's Nyström attention; 0 for d/2.
        queries: learnable queries of ASMIL.
        query_dropout: share of ASMIL's tokens that a training step leaves out.
        entropy_weight: λ of AEM's negative attention entropy.
        anneal_entropy: λ falls to zero along half a cosine over the run, as published.
        anchor_weight: weight of ASMIL's divergence from the anchor's attention.
        anchor_decay: of ASMIL's anchor, a moving average of the network.
    """

    name: NetworkName = "abmil"
    width: int = 0
    dropout: float = 0.0
    attention_dim: int = 128
    gated: bool = True
    heads: int = 8
    landmarks: int = 0
    queries: int = 4
    query_dropout: float = 0.5
    entropy_weight: float = 0.1
    anneal_entropy: bool = True
    anchor_weight: float = 1.0
    anchor_decay: float = 0.999

    def __post_init__(self) -> None:
        for name, least in (("width", 0), ("attention_dim", 1), ("heads", 1), ("landmarks", 0), ("queries", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name in ("dropout", "query_dropout", "anchor_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0 and below 1")
        if self.entropy_weight < 0 or self.anchor_weight < 0:
            raise ValueError("entropy_weight and anchor_weight must be at least 0")


@dataclass(frozen=True)
class SlideRecipe:
    """Everything that defines the run of a slide classifier; written into its folder as ``recipe.json``."""

    data: SlideData
    network: BagNetwork = field(default_factory=BagNetwork)
    objective: ObjectiveOptions = field(default_factory=NCMIOptions)
    training: Training = field(default_factory=slide_training)
    sampling: Literal["all", "balanced"] = "all"
