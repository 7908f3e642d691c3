"""The recipe of a run: data, network, objective, training. One for every kind of data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ncmi.loss.alternating import Alternation
from ncmi.loss.forms import check_range
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes.data import BagData, Data, Kind, SampleData
from ncmi.recipes.networks import BagNetwork, Network


@dataclass(frozen=True)
class Augmentation:
    """How inputs are varied; two-view objectives vary each view, other objectives vary where ``enabled``.

    Attributes:
        enabled: vary the training inputs of one-view objectives as well.
        shift: largest shift of an image in pixels; None for an eighth of its side, at least 1, or, with crop_scale, 0.
        flip: mirror images left and right; not for digits or letters.
        noise: standard deviation of Gaussian noise on standardized inputs.
        mask: probability that a value of a table is replaced by its column's mean.
        rotation: largest turn of an image in degrees, either way; interpolated bilinearly.
        crop_scale: least and largest part of an image's area in a crop that is scaled to the image's size.
        brightness, contrast, saturation: of RGB images: factors are uniform in 1 − x … 1 + x, not below 0.
        hue: of RGB images: largest turn of the hue, in parts of a full turn, up to ½.
        jitter_probability: that an image's brightness, contrast, saturation and hue are varied at all.
        gray: probability that an RGB image loses its colors.
        cutout: side of a square that is cut out of each image about a random pixel, as a part of the image's shorter
            side (DeVries & Taylor 2017, arXiv 1708.04552; there 0.25 for CIFAR-100); 0 for none.
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
    gray: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "shift", "noise", "brightness", "contrast", "saturation", least=0, below=math.inf)
        check_range(self, "rotation", least=0, most=180)
        check_range(self, "hue", least=0, most=0.5)
        check_range(self, "jitter_probability", "gray", "cutout", least=0, most=1)
        check_range(self, "mask", least=0, below=1)
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale={self.crop_scale}: give least and largest part, above 0 and up to 1: 0.2 1")

    @property
    def varies_color(self) -> bool:
        """Whether colors of images are varied, which takes RGB images."""
        return max(self.brightness, self.contrast, self.saturation, self.hue, self.gray) > 0

    @classmethod
    def cifar(cls) -> Augmentation:
        """Pad-and-crop by an eighth of the side (4 pixels of 32) and mirroring, the usual set for CIFAR."""
        return cls(enabled=True, flip=True, noise=0.0)

    @classmethod
    def imagenet(cls, least_area: float = 0.08) -> Augmentation:
        """Resized crop of at least this part of the area, and mirroring, the usual set for ImageNet."""
        return cls(enabled=True, flip=True, noise=0.0, crop_scale=(least_area, 1.0))

    @classmethod
    def supcon(cls) -> Augmentation:
        """Resized crop, mirroring, color jitter and gray: the set of SimCLR and SupCon for CIFAR."""
        return cls(
            enabled=True,
            flip=True,
            noise=0.0,
            crop_scale=(0.2, 1.0),
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            gray=0.2,
        )


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
        epochs: passes over the training part; 0 for a number by its size.
        batch_size: samples of one optimizer step, over all processes; 0 for a number by the size of the data.
        accumulate: micro-batches that a batch is worked through in.
        optimizer: "adamw" or "sgd".
        learning_rate, weight_decay, momentum, nesterov: of the network's optimizer.
        decay_all: weight decay on biases and normalization too, not on matrices and kernels alone.
        centroid_learning_rate: of the centroids' own optimizer (learned centroids), without weight decay.
        schedule: of both learning rates, over steps: "constant", "cosine", "linear" (down to zero in a line),
            "one_cycle" (up for 30 % of the run, then down to zero) or "step" (times decay_factor at each of the
            milestones).
        warmup_epochs: linear warm-up before cosine, linear, step or constant; fractions allowed.
        milestones, decay_factor: of the step schedule, in epochs.
        clip_norm: limit of the gradient's norm; None for none.
        ema_decay: keep a moving average of the weights and evaluate that; None for none.
        alternation: how network and centroids take turns.
        augmentation: how the training inputs are varied.
        image_sizes: shorter side of the training images in pixels, in equal parts of the epochs in turn (16 16 24 32:
            half of the run at 16), varied first and then scaled down; where larger than their own, and by default,
            their own. Small images cost less; validation and test images keep their size, so end with it.
        sampling: "all": every training sample once an epoch; "balanced": as many draws, each class alike.
        selection: "last" takes the last epoch; "best" the one that does best on the validation part: by accuracy, with
            bags by macro AUC and then loss.
        patience: stop after so many epochs that are not better in this sense; None for never.
        precision: "32-true", "bf16-mixed" or "64-true".
        accelerator: "cpu", "cuda", "mps" or "auto".
        devices: processes on this machine, one device each, where no launcher (torchrun, srun) has started them. Two
            recipes that differ in it are equal: a run goes on with another number of them and the same batches.
        threads: CPU threads of each process; None for torch's own choice, while a perceptron is trained in small
            batches one: more gain nothing there.
        compile: torch.compile of the network.
        checkpoint_steps: also write a checkpoint after so many steps.
        checkpoint_minutes: also write a checkpoint within an epoch when the last one is so old.
        checkpoint_seconds: leave out an epoch's checkpoint where the last one is not so old; by default each epoch
            writes one. Where epochs take seconds and checkpoints 100 MB, writing them would cost more than the epochs.
        timeout_seconds: of processes that train together: how long one may give no sign of life before the others end.
        logger: also show epochs and results by these: "tensorboard" and "csv" in the run folder, "wandb", "mlflow",
            "trackio"; CMI, Γ and NCMI are among what is shown.
        neighbors_limit: after training, kNN looks for neighbors among at most so many training samples, each class by
            its share; 0 leaves kNN out. By default all up to 22,360; of N above that 5·10⁸/N, or 1,000 or 10 a class.
        readouts: by which a trained model is judged: "all", or of tables and images "own": the first of those that the
            objective is meant for, mostly its head. LP and kNN are then not fitted: a tenth to a fifth of a short run.
        seed: of initialization, order and augmentation.
    """

    epochs: int = 0
    batch_size: int = 0
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = True
    decay_all: bool = False
    centroid_learning_rate: float = 5e-3
    schedule: Literal["constant", "cosine", "linear", "one_cycle", "step"] = "one_cycle"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay_factor: float = 0.1
    clip_norm: float | None = None
    ema_decay: float | None = None
    alternation: Alternation = field(default_factory=Alternation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    image_sizes: tuple[int, ...] = ()
    sampling: Literal["all", "balanced"] = "all"
    selection: Literal["last", "best"] = "last"
    patience: int | None = None
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    accelerator: Literal["cpu", "cuda", "mps", "auto"] = "auto"
    devices: int = field(default=1, compare=False)
    threads: int | None = None
    compile: bool = False
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = field(default=None, compare=False)
    checkpoint_seconds: float = 0.0
    timeout_seconds: float = field(default=600.0, compare=False)
    logger: tuple[Literal["tensorboard", "csv", "wandb", "mlflow", "trackio"], ...] = ()
    neighbors_limit: int | None = None
    readouts: Literal["all", "own"] = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "epochs", "batch_size", least=0, most=10**9)
        check_range(self, "neighbors_limit", least=0)
        check_range(self, "seed", least=0, below=2**63)  # what torch takes
        check_range(self, "weight_decay", "warmup_epochs", least=0, below=math.inf)
        check_range(self, "checkpoint_seconds", least=0)
        check_range(self, "accumulate", "devices", "patience", "threads", "checkpoint_steps", least=1)
        check_range(self, "learning_rate", "centroid_learning_rate", "decay_factor", above=0, below=math.inf)
        check_range(self, "clip_norm", "checkpoint_minutes", above=0)
        check_range(self, "timeout_seconds", least=5, most=10**6)
        check_range(self, "momentum", least=0, below=1, cure="usually 0.9")
        check_range(self, "ema_decay", least=0, below=1, cure="usually 0.999")
        if len(set(self.logger)) < len(self.logger):
            raise ValueError(f"logger={self.logger}: name each one once")
        if any(size < 1 for size in self.image_sizes):
            raise ValueError(f"image_sizes={self.image_sizes}: give sides of at least 1 pixel, e.g. 16 24 32")
        if 0 < self.batch_size < self.devices:
            raise ValueError(
                f"batch_size={self.batch_size}, devices={self.devices}: each device takes at least one sample "
                "of a batch: give a larger batch size, or fewer devices"
            )


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a run; written into its folder as ``recipe.json``.

    Attributes:
        data: :class:`TableData`, :class:`ImageData` or :class:`BagData`, which is the kind of the run.
        network: :class:`BagNetwork` for bags, else :class:`Network`; by default the kind's own.
        objective: options of the loss.
        training: by default :func:`default_training` of the kind.
    """

    data: Data
    network: Network | BagNetwork = None  # type: ignore[assignment]  # settled at once, by the kind of data
    objective: ObjectiveOptions = field(default_factory=NCMIOptions)
    training: Training = None  # type: ignore[assignment]  # the same

    def __post_init__(self) -> None:
        bags = isinstance(self.data, BagData)
        if self.network is None:
            object.__setattr__(self, "network", BagNetwork() if bags else Network())
        if self.training is None:
            object.__setattr__(self, "training", default_training(self.data.kind))
        if bags != isinstance(self.network, BagNetwork):
            raise ValueError(
                f"{type(self.network).__name__} with {type(self.data).__name__}: bags take a BagNetwork, tables and "
                "images a Network"
            )
        nothing_left = isinstance(self.data, SampleData) and self.data.train_on_all
        if nothing_left and (self.training.selection == "best" or self.training.patience is not None):
            raise ValueError(
                "train_on_all leaves nothing to select by: use selection='last' without patience, or leave it out"
            )


def default_training(kind: Kind) -> Training:
    """How data of a kind is usually trained: slide classifiers by AdamW 1e-4, one slide a step, cosine, 50 epochs."""
    if kind != "bags":
        return Training()
    return Training(
        epochs=50,
        batch_size=1,
        learning_rate=1e-4,
        weight_decay=1e-5,
        schedule="cosine",
        selection="best",
        centroid_learning_rate=1e-4,
    )
