"""Recipes for ImageNet, and for any other folder or shards of images; each takes the objective to train with.

The data is what the command line names: ``ncmi train FOLDER --recipe imagenet.short``, where FOLDER has ``train`` and
``val``. ImageNet's ``val`` is then the test part.
"""

from typing import Any

from ncmi.loss.alternating import Alternation
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions
from ncmi.recipes.cifar100 import PAPER_NCMI
from ncmi.recipes.data import ImageData
from ncmi.recipes.networks import Network
from ncmi.recipes.recipe import Augmentation, Recipe, Training

_DATA = "imagenet"  # where none is named: a folder of this name below the data folder
_CROP_FLIP = Augmentation.imagenet()


def imagenet_paper(objective: ObjectiveOptions = PAPER_NCMI) -> Recipe:
    """As published: ResNet-50, SGD 0.5, weight decay 5e-5, batch 1024, 1000 epochs, cosine (2601.02543).

    All training images are trained on and the last epoch is judged. Published top-1 accuracy: cross-entropy 76.24 %,
    NCMI-CC 79.01 %, NCMI-LP 78.92 %; an epoch took 6 min 39 s and 6 min 44 s on eight A5000, so 1000 epochs five days.
    What the paper does not say is as usual: 224 pixels, resized crops, mirroring. Not run by us.
    """
    return _large(
        ImageData(_DATA, image_size=224, validation_fraction=0.02, train_on_all=True),
        Network("resnet50", stem="large"),
        objective,
        epochs=1000,
        batch_size=1024,
        learning_rate=0.5,
        weight_decay=5e-5,
        decay_all=True,
        centroid_learning_rate=1.0,
        schedule="cosine",
        alternation=Alternation("phases"),
    )


def imagenet_short(objective: ObjectiveOptions = NCMIOptions(label_smoothing=0.1)) -> Recipe:
    """ResNet-50 in 16 epochs, or with --training.epochs 32 or 88: the settings of the public recipe of FFCV.

    That recipe, cross-entropy with label smoothing 0.1 (here --objective label_smoothing), has 73.8, 76.6 and 78.4 %
    top-1 in 15, 29 and 77 minutes on eight A100. SGD 1.7, batch 4096, two epochs up and then down in a line, BlurPool,
    160 pixels and for the last quarter 192, tests at 256 with mirror images, bfloat16, compiled. Where the devices do
    not hold a batch: --training.accumulate. Not run by us: what NCMI reaches is not known.
    """
    return _large(
        ImageData(_DATA, image_size=256, validation_fraction=0.02, train_on_all=True),
        Network("resnet50", stem="large", blurpool=True, test_flip=True),
        objective,
        epochs=16,
        batch_size=4096,
        learning_rate=1.7,
        weight_decay=1e-4,
        centroid_learning_rate=1.7,
        schedule="linear",
        warmup_epochs=2.0,
        image_sizes=(160, 160, 160, 192),
        precision="bf16-mixed",
        compile=True,
    )


def imagenet_tiny(objective: ObjectiveOptions = NCMIOptions()) -> Recipe:
    """What the large recipes do, in minutes on two cores: ResNet-18 of half the width, 64 pixels, 16 epochs.

    For about 100 classes of 100 images, some 13 minutes of one core; of a larger data set take so many
    (--data.train-per-class 100). Measured on 20 classes of CIFAR-100 as enlarged JPEGs, 101 training images each, one
    seed: NCMI 47.7 % by its head and 51.5 % by linear probe, in two and a half minutes of one core.
    """
    return Recipe(
        ImageData(_DATA, image_size=64, validation_fraction=0.1),
        Network("resnet18", width=32, stem="large", blurpool=True, zero_init=True, test_flip=True),
        objective,
        Training(
            epochs=16,
            batch_size=128,
            optimizer="sgd",
            learning_rate=0.2,
            weight_decay=5e-4,
            centroid_learning_rate=0.2,
            schedule="one_cycle",
            augmentation=Augmentation.imagenet(least_area=0.35),
            image_sizes=(32, 32, 48, 64),
            ema_decay=0.98,
            checkpoint_seconds=30.0,
        ),
    )


def _large(data: ImageData, network: Network, objective: ObjectiveOptions, **training: Any) -> Recipe:
    """What the recipes for ImageNet itself have in common."""
    return Recipe(
        data,
        network,
        objective,
        Training(
            optimizer="sgd",
            nesterov=False,
            augmentation=_CROP_FLIP,
            # of 1.3 million images in 2048 dimensions neighbors are dear
            neighbors_limit=0,
            **training,
        ),
    )
