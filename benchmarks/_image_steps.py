"""Three ways to train the same network: our loop, the bare step on prepared batches, and a plain PyTorch loop."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ncmi.data import Dataset, Split, Standardiser, batch_slices, load_dataset
from ncmi.recipes import Recipe, resolve_recipe
from ncmi.training.model import Model, Signature
from ncmi.training.optimisers import make_optimisers
from ncmi.training.run_folder import RunFolder
from ncmi.training.signals import StopRequest
from ncmi.training.tensor_loop import TensorLoop

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


def whole(dataset: Dataset) -> Split:
    """All of a data set as its training part."""
    nothing = torch.empty(0, dtype=torch.int64)
    return Split(torch.arange(len(dataset)), nothing, nothing)


def make_model(recipe: Recipe, dataset: Dataset, device: torch.device) -> tuple[Recipe, Model]:
    """The recipe, settled, and its model with the statistics of the data, always the same weights."""
    recipe = resolve_recipe(recipe, dataset.sample_shape, dataset.num_classes, len(dataset))
    torch.manual_seed(0)
    model = Model(recipe, Signature.of(dataset))
    model.standardise.load_state_dict(Standardiser.fit(dataset.inputs[:2048], "image").state_dict())
    return recipe, model.to(device).train()


class Ours:
    """An epoch of :class:`ncmi.training.tensor_loop.TensorLoop`, driven as :func:`ncmi.training.train` drives it."""

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        recipe, self.model = make_model(recipe, dataset, device)
        # so many epochs that the schedule never ends, and nothing is learned that would change the time of a step
        training = replace(recipe.training, epochs=100_000)
        fabric = Fabric(accelerator=device.type, devices=1, precision=training.precision)  # type: ignore[arg-type]
        fabric.launch()
        self._scratch = Path(tempfile.mkdtemp(prefix="ncmi-benchmark-"))
        folder = RunFolder.create(self._scratch / "run", recipe)
        self.loop = TensorLoop(fabric, self.model, dataset, whole(dataset), training, folder, ())
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


class Whole(nn.Module):
    """Network and loss in one, to be compiled together."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.model.objective.loss(self.model.backbone(images), labels)


class Bare:
    """Forward, loss, backward and step, on standardised batches that lie on the device; nothing else.

    Args:
        compiled: "", "network", "graphs" (the network, with CUDA graphs), or "loss" (network and loss together).
        contiguous: not channels last.
        backend: of torch.compile.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        device: torch.device,
        compiled: str = "",
        contiguous: bool = False,
        backend: str = "inductor",
    ) -> None:
        recipe, self.model = make_model(recipe, dataset, device)
        self.device, self.compiled = device, compiled
        self.half = recipe.training.precision == "bf16-mixed"
        optimisers = make_optimisers(self.model, recipe.training)
        self.optimisers = [optimiser for optimiser in optimisers if optimiser is not None]
        self.network: Any = Contiguous(self.model.backbone) if contiguous else self.model.backbone
        if compiled in ("network", "graphs"):
            mode = "reduce-overhead" if compiled == "graphs" and backend == "inductor" else None
            self.network = torch.compile(self.network, dynamic=False, mode=mode, backend=backend)
        self.whole: Any = (
            torch.compile(Whole(self.model), dynamic=False, backend=backend) if compiled == "loss" else None
        )
        with torch.no_grad():
            self.batches = [
                (self.model.standardise(dataset.inputs[part].to(device)), dataset.labels[part].to(device))
                for part in batch_slices(len(dataset), recipe.training.batch_size)
            ]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        if self.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self.whole is not None:
                loss: Tensor = self.whole(images, labels)
            else:
                loss = self.model.objective(self.network(images), labels)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        return loss.detach()

    def epoch(self) -> None:
        for images, labels in self.batches:
            self.step(images, labels)

    def steps(self, count: int) -> None:
        """So many steps, beginning again where the batches end."""
        for images, labels in itertools.islice(itertools.cycle(self.batches), count):
            self.step(images, labels)


class PilImages(TorchDataset[tuple[Tensor, int]]):
    """Images that are padded, cropped at random, mirrored and standardised one by one."""

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
            Contiguous(model.backbone),
            nn.Linear(recipe.backbone.feature_dim, dataset.num_classes),
        ).to(device)
        self.optimiser = torch.optim.SGD(
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
            self.optimiser.zero_grad()
            loss = nn.functional.cross_entropy(self.network(images), labels)
            loss.backward()
            self.optimiser.step()
            total += loss.item()
