"""Three ways to train the same network: our loop, the bare step on prepared batches, and a plain PyTorch loop.

And what is measured of a step: its time in pairs, and its peak memory to the byte.
"""

import itertools
import logging
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from _timing import Row
from ncmi.data.batches import batch_slices
from ncmi.data.dataset import Dataset
from ncmi.data.load import load_dataset
from ncmi.data.signature import Signature
from ncmi.data.splits import Split
from ncmi.data.standardize import Standardizer
from ncmi.recipes import Recipe, resolve_recipe
from ncmi.training.loop import Setup
from ncmi.training.model import Classifier
from ncmi.training.optimizers import make_optimizers
from ncmi.training.run_folder import RunFolder
from ncmi.training.samples import SampleLoop, SampleSource
from ncmi.training.stopping import StopRequest
from ncmi.training.timing import peak_of

# one line for every loop that is made would tear the table apart
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def some_images(count: int, size: int, data_dir: str | None) -> tuple[Dataset, str]:
    """So many training images of CIFAR-100, or random ones where it is not found; and which of the two."""
    try:
        found = load_dataset("cifar100", image_size=size, data_dir=data_dir)
        inputs, labels, source = found.inputs[:count], found.labels[:count], "CIFAR-100"
    except FileNotFoundError:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        labels, source = torch.randint(100, (count,), generator=generator), "random images"
    names = tuple(f"class {number}" for number in range(100))
    return Dataset("images", inputs.contiguous(), labels.contiguous(), names, "image"), f"{source}, {size}×{size}"


class WholeSource(SampleSource):
    """All of a data set as its training part, whatever classes it has."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.data, self.dataset, self.labels = recipe.data, dataset, dataset.labels  # type: ignore[assignment]
        nothing = torch.empty(0, dtype=torch.int64)
        self.split = Split(torch.arange(len(dataset)), nothing, nothing)
        self.signature = Signature(
            kind="image", sample_shape=dataset.sample_shape, class_names=dataset.class_names, feature_names=None
        )


def make_model(recipe: Recipe, dataset: Dataset, device: torch.device) -> tuple[Recipe, Classifier]:
    """The recipe, settled, and its model with the statistics of the data, always the same weights."""
    recipe = resolve_recipe(recipe, dataset.sample_shape, dataset.num_classes, len(dataset))
    torch.manual_seed(0)
    model = Classifier(recipe, WholeSource(recipe, dataset).signature)
    model.standardize.load_state_dict(Standardizer.fit(dataset.inputs[:2048], "image").state_dict())
    return recipe, model.to(device).train()


class Ours:
    """An epoch of :class:`ncmi.training.samples.SampleLoop`, driven as :func:`ncmi.training.run.train` drives it."""

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        recipe, self.model = make_model(recipe, dataset, device)
        # so many epochs that the schedule never ends, and nothing is learned that would change the time of a step
        recipe = replace(recipe, training=replace(recipe.training, epochs=100_000))
        fabric = Fabric(accelerator=device.type, devices=1, precision=recipe.training.precision)  # type: ignore[arg-type]
        fabric.launch()
        self._scratch = Path(tempfile.mkdtemp(prefix="ncmi-benchmark-"))
        folder = RunFolder.create(self._scratch / "run", recipe)
        self.loop = SampleLoop(WholeSource(recipe, dataset), Setup(fabric, self.model, recipe.training, folder))
        self.steps_seconds: list[float] = []

    def epoch(self) -> None:
        """One epoch, with its metrics and its checkpoint; what the steps alone took is in ``steps_seconds``."""
        self.loop._run_epoch(StopRequest(enabled=False))
        self.steps_seconds.append(self.loop.progress.rows.pop()["seconds"])

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


class Contiguous(nn.Module):
    """One of our residual networks with channels before height and width in memory, as plain PyTorch has it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*network.children()).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.parts(images)
        return features.mean((-2, -1))


class Bare:
    """Forward, loss, backward and step, on standardized batches that lie on the device; nothing else."""

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        recipe, self.model = make_model(recipe, dataset, device)
        self.device = device
        self.half = recipe.training.precision == "bf16-mixed"
        optimizers = make_optimizers(self.model, recipe.training)
        self.optimizers = [optimizer for optimizer in optimizers if optimizer is not None]
        with torch.no_grad():
            self.batches = [
                (self.model.standardize(dataset.inputs[part].to(device)), dataset.labels[part].to(device))
                for part in batch_slices(len(dataset), recipe.training.batch_size)
            ]

    def step(self, images: Tensor, labels: Tensor) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.model.objective(self.model.network(images), labels)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def epoch(self) -> None:
        for images, labels in self.batches:
            self.step(images, labels)

    def steps(self, count: int) -> None:
        """So many steps, beginning again where the batches end."""
        for images, labels in itertools.islice(itertools.cycle(self.batches), count):
            self.step(images, labels)


class PilImages(TorchDataset[tuple[Tensor, int]]):
    """Images that are padded, cropped at random, mirrored and standardized one by one."""

    def __init__(self, dataset: Dataset, pad: int) -> None:
        self.images = dataset.inputs.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = dataset.labels.tolist()
        self.pad, self.size = pad, self.images.shape[1]
        pixels = dataset.inputs[:2048].double() / 255
        self.mean = pixels.mean((0, 2, 3)).float()[:, None, None]
        self.scale = pixels.std((0, 2, 3)).float()[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), self.pad)
        left, top, mirrored = (int(torch.randint(limit, ())) for limit in (2 * self.pad + 1, 2 * self.pad + 1, 2))
        image = image.crop((left, top, left + self.size, top + self.size))
        if mirrored:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return pixels.sub_(self.mean).div_(self.scale), self.labels[index]


def _padding(shift: int | None, dataset: Dataset) -> int:
    """What a shift left open comes to in our own loop."""
    return max(1, min(dataset.sample_shape[-2:]) // 8) if shift is None else shift


class Plain:
    """What a first script looks like: DataLoader, augmentation image by image, cross-entropy, float32, contiguous."""

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, workers: int) -> None:
        recipe, model = make_model(recipe, dataset, device)
        training = recipe.training
        self.network = nn.Sequential(
            Contiguous(model.network),
            nn.Linear(recipe.network.feature_dim, dataset.num_classes),
        ).to(device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=0.04 * training.learning_rate,
            momentum=training.momentum,
            nesterov=training.nesterov,
            weight_decay=training.weight_decay,
        )
        self.device = device
        self.loader = DataLoader(
            PilImages(dataset, _padding(training.augmentation.shift, dataset)),
            batch_size=training.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def epoch(self) -> None:
        total = 0.0
        for images, labels in self.loader:
            images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item()


def paired_steps(what: str, ours: Ours, bare: Bare, epochs: int, bar: float) -> Row:
    """Time of a step of our loop over that of the bare step before it; CPU only.

    Everything the loop does from one step to the next counts as its step. The first epoch warms up. The median is of
    all pairs, the range of the medians of the epochs; a pair is so short that other work on the machine slows both.
    """
    loop, batches = ours.loop, itertools.cycle(bare.batches)
    inner = loop._step
    clocks: list[tuple[float, float]] = []

    def note_time() -> None:
        clocks.append((time.perf_counter(), time.process_time()))

    def step(batch: Tensor) -> None:
        note_time()
        bare.step(*next(batches))
        note_time()
        inner(batch)

    loop._step = step  # type: ignore[method-assign]
    of_epochs: list[NDArray[np.float64]] = []
    spent: list[NDArray[np.float64]] = []
    for epoch in range(epochs + 1):
        clocks.clear()
        ours.epoch()
        if epoch:
            begin, end = np.array(clocks).reshape(-1, 2, 2).swapaxes(0, 1)
            # after an epoch's last step comes its end, which is no step
            spent.append((end - begin)[:-1])
            of_epochs.append((begin[1:] - end[:-1]) / spent[-1])
    loop._step = inner  # type: ignore[method-assign]
    pairs = np.concatenate(of_epochs)  # a row a pair: wall-clock, processor
    wall_clock, processor = np.median(pairs, axis=0)
    medians = [float(np.median(one[:, 0])) for one in of_epochs]
    note = f"bare step {1e3 * np.median(np.concatenate(spent)[:, 0]):.1f} ms"
    if torch.get_num_threads() == 1:
        note += f"; processor time {processor:.3f} ×"
    return Row(what, float(wall_clock), min(medians), max(medians), bar=bar, digits=3, repeats=len(pairs), note=note)


def peak_of_step(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    """Bytes at the peak of a step: gradients dropped, forward, loss, backward, optimizer.

    Weights, momentum, the batch, and whatever a loss keeps, all count: see :func:`ncmi.training.timing.peak_of`.
    """
    return peak_of(lambda: partial(Bare(recipe, dataset, device).steps, 1), device)
