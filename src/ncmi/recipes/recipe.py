"""The recipe of a run: data, backbone, objective, training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ncmi.options import Alternation, NCMIOptions, ObjectiveOptions


def _check_least(section: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name}={value}: must be at least {least}")


@dataclass(frozen=True)
class Data:
    """Which data, how it is split, and how its training part is damaged, if it is, to study robustness.

    Damage befalls the training part alone: first ``train_per_class``, then ``imbalance``, then ``label_noise``.
    Validation and test stay clean, and as balanced as they are. It is drawn by the split's seed, alike for every
    objective. Losses and read-outs (CC, LP, kNN) are given the wrong labels, as by one who has no others.

    Attributes:
        name: embedded name (digits, wine, breast_cancer, iris), path, or name of a file below the data folder.
        label_column: label column of a table, where it is not called label, class, target or y.
        image_size: side in pixels to which the images of a folder, or those of CIFAR, are scaled.
        data_dir: folder to search for names; by default the environment variable NCMI_DATA.
        validation_fraction: part of the data set; of what is outside its official test set, where it has one.
        test_fraction: part of the data set, where it has no official test set.
        train_per_class: train on so many samples of each class, drawn at random by the split's seed; None for all.
        train_on_all: train on the validation part as well. Nothing can be selected then: the last epoch is taken.
        split_seed: the split; by default the training seed, so that every seed has its own split.
        imbalance: long tail: class c of C keeps imbalance^(−c/(C−1)) of the largest class's training samples, so that
            the last one has so many times fewer than the first (usual: 100); 1 for as the data is.
        label_noise: share of the training labels that are replaced by wrong ones, such as 0.4.
        noise_kind: "symmetric": any other class, each alike; "pair": class c becomes c + 1, and the last one 0.
    """

    name: str
    label_column: str | None = None
    image_size: int = 32
    data_dir: str | None = None
    validation_fraction: float = 0.15
    test_fraction: float = 0.2
    train_per_class: int | None = None
    train_on_all: bool = False
    split_seed: int | None = None
    imbalance: float = 1.0
    label_noise: float = 0.0
    noise_kind: Literal["symmetric", "pair"] = "symmetric"

    def __post_init__(self) -> None:
        _check_least(self, 1, "image_size", "train_per_class")
        if not 1 <= self.imbalance < math.inf:
            raise ValueError(
                f"imbalance={self.imbalance}: must be at least 1, the largest class over the smallest, such as 100"
            )
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"label_noise={self.label_noise}: must be at least 0 and below 1, such as 0.4")


@dataclass(frozen=True)
class Backbone:
    """The network that makes the feature.

    Attributes:
        name: "mlp" (tables, flattened images), "convnet" (images), "resnet18", "resnet34", "resnet50", "resnet101",
            "resnet9" or "resnet_small" (small colour images), or "auto" (mlp or convnet, by the shape of a sample).
        width: hidden width, or channels of the first block; 0 for the network's usual one.
        depth: hidden layers, or blocks (of each stage, for resnet_small); 0 for the network's usual one.
        feature_dim: D, the width of the feature; 0 for 128, or more where there are more classes. That of a residual
            network follows from its width.
        dropout: probability of dropping a hidden unit (mlp, convnet).
        weights: safetensors or .pth file with weights of this network to start from; see :mod:`ncmi.backbones.weights`.
    """

    name: str = "auto"
    width: int = 0
    depth: int = 0
    feature_dim: int = 0
    dropout: float = 0.0
    weights: str | None = None

    def __post_init__(self) -> None:
        _check_least(self, 0, "width", "depth", "feature_dim")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1")


@dataclass(frozen=True)
class Augmentation:
    """How inputs are varied; two-view objectives vary each view, other objectives vary where ``enabled``.

    Attributes:
        enabled: vary the training inputs of one-view objectives as well.
        shift: largest shift of an image in pixels; None for an eighth of its side, at least 1, or, with crop_scale, 0.
        flip: mirror images left and right; not for digits or letters.
        noise: standard deviation of Gaussian noise on standardised inputs.
        mask: probability that a value of a table is replaced by its column's mean.
        rotation: largest turn of an image in degrees, either way; interpolated bilinearly.
        crop_scale: least and largest part of an image's area in a crop that is scaled to the image's size.
        brightness, contrast, saturation: of RGB images: factors are uniform in 1 − x … 1 + x, not below 0.
        hue: of RGB images: largest turn of the hue, in parts of a full turn, up to ½.
        jitter_probability: that an image's brightness, contrast, saturation and hue are varied at all.
        grey: probability that an RGB image loses its colours.
    """

    enabled: bool = False
    shift: int | None = None
    flip: bool = False
    noise: float = 0.1
    mask: float = 0.1
    rotation: float = 0.0
    crop_scale: tuple[float, float] | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 0.8
    grey: float = 0.0

    def __post_init__(self) -> None:
        _check_least(self, 0, "shift", "noise", "brightness", "contrast", "saturation")
        for name, largest in (("rotation", 180), ("hue", 0.5), ("jitter_probability", 1), ("grey", 1)):
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise ValueError(f"{name}={value}: must be at least 0 and at most {largest}")
        if not 0 <= self.mask < 1:
            raise ValueError(f"mask={self.mask}: must be at least 0 and below 1")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale={self.crop_scale}: give least and largest part, above 0 and up to 1: 0.2 1")

    @property
    def varies_colour(self) -> bool:
        """Whether colours of images are varied, which takes RGB images."""
        return max(self.brightness, self.contrast, self.saturation, self.hue, self.grey) > 0

    @classmethod
    def cifar(cls) -> Augmentation:
        """Pad-and-crop by an eighth of the side (4 pixels of 32) and mirroring, the usual set for CIFAR."""
        return cls(enabled=True, flip=True, noise=0.0)

    @classmethod
    def supcon(cls) -> Augmentation:
        """Resized crop, mirroring, colour jitter and grey: the set of SimCLR and SupCon for CIFAR."""
        return cls(
            enabled=True,
            flip=True,
            noise=0.0,
            crop_scale=(0.2, 1.0),
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            grey=0.2,
        )


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
        epochs: passes over the training part; 0 for a number by its size.
        batch_size: samples of one optimiser step, over all processes; 0 for a number by the size of the data.
        accumulate: micro-batches that a batch is worked through in.
        optimiser: "adamw" or "sgd".
        learning_rate, weight_decay, momentum, nesterov: of the network's optimiser.
        decay_all: weight decay on biases and normalisation too, not on matrices and kernels alone.
        centroid_learning_rate: of the centroids' own optimiser (learned centroids), without weight decay.
        schedule: of both learning rates, over steps: "constant", "cosine", "one_cycle" (up for 30 % of the run, then
            down to zero) or "step" (times decay_factor at each of the milestones).
        warmup_epochs: linear warm-up before cosine, step or constant; fractions allowed.
        milestones, decay_factor: of the step schedule, in epochs.
        clip_norm: limit of the gradient's norm; None for none.
        ema_decay: keep a moving average of the weights and evaluate that; None for none.
        alternation: how network and centroids take turns.
        augmentation: how the training inputs are varied.
        selection: "last" takes the last epoch; "best" the one of highest validation accuracy.
        patience: stop after so many epochs without a better validation accuracy; None for never.
        precision: "32-true", "bf16-mixed" or "64-true".
        accelerator: "cpu", "cuda", "mps" or "auto".
        devices: processes, one device each.
        threads: CPU threads of each process; None for torch's own choice.
        compile: torch.compile of the backbone.
        checkpoint_steps: also write a checkpoint after so many steps.
        checkpoint_seconds: leave out an epoch's checkpoint where the last one is not so old; by default each epoch
            writes one. Where epochs take seconds and checkpoints 100 MB, writing them would cost more than the epochs.
        tensorboard: also write TensorBoard logs.
        seed: of initialisation, order and augmentation.
    """

    epochs: int = 0
    batch_size: int = 0
    accumulate: int = 1
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = True
    decay_all: bool = False
    centroid_learning_rate: float = 5e-3
    schedule: Literal["constant", "cosine", "one_cycle", "step"] = "one_cycle"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay_factor: float = 0.1
    clip_norm: float | None = None
    ema_decay: float | None = None
    alternation: Alternation = field(default_factory=Alternation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    selection: Literal["last", "best"] = "last"
    patience: int | None = None
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    accelerator: Literal["cpu", "cuda", "mps", "auto"] = "auto"
    devices: int = 1
    threads: int | None = None
    compile: bool = False
    checkpoint_steps: int | None = None
    checkpoint_seconds: float = 0.0
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_least(self, 0, "epochs", "batch_size", "seed", "weight_decay", "warmup_epochs", "checkpoint_seconds")
        _check_least(self, 1, "accumulate", "devices", "patience", "threads", "checkpoint_steps")
        for name in ("learning_rate", "centroid_learning_rate", "decay_factor", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: must be above 0")
        for name, usual in (("momentum", 0.9), ("ema_decay", 0.999)):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be at least 0 and below 1 (usual: {usual})")


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run; written into its folder as ``recipe.json``."""

    data: Data
    backbone: Backbone = field(default_factory=Backbone)
    objective: ObjectiveOptions = field(default_factory=NCMIOptions)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if self.data.train_on_all and (self.training.selection == "best" or self.training.patience is not None):
            raise ValueError(
                "train_on_all leaves nothing to select by: use selection='last' without patience, or leave it out"
            )
