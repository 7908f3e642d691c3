"""Images of shards in a run: read and decoded ahead by worker processes; neither all of them nor all features kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import msgspec
import torch
from torch import Tensor

from ncmi.data.batches import epoch_order, process_shares
from ncmi.data.dataset import Dataset
from ncmi.data.shards.reading import (
    BrokenImages,
    Chunk,
    ShardFiles,
    ShardImages,
    Share,
    Variation,
    read_ahead,
    windowed_order,
)
from ncmi.data.standardize import Standardizer
from ncmi.data.tables.table import LabeledTable
from ncmi.errors import left_out_in_words
from ncmi.readouts.streamed import StreamedScores, all_rows
from ncmi.recipes import ImageData, Recipe
from ncmi.training.judging import Features, Outcome, Stages, information_of
from ncmi.training.loop import Loop, Setup
from ncmi.training.model import Classifier
from ncmi.training.samples import SampleSource, ViewMaker, split_views
from ncmi.training.streams import FeatureRows, Stream, accumulator_for, judge_streams
from ncmi.training.workers import processors

_MOST_READERS = 16
_EVALUATION_PIXELS, _EVALUATION_IMAGES = 2**23, 256
"""Of a batch of each process, where nothing is trained."""
_STANDARD_IMAGES = 2048  # whose channels are standardized by


class ShardSource(SampleSource):
    """A folder of shards: its index is in memory, its images are read when they are used."""

    files: ShardFiles

    def encode(self, samples: Dataset | LabeledTable) -> Dataset:
        dataset = super().encode(samples)
        assert isinstance(dataset.inputs, ShardFiles)
        self.files = dataset.inputs
        self.signature = msgspec.structs.replace(self.signature, crop_fraction=self.files.crop_fraction)
        assert isinstance(self.data, ImageData)
        self.broken = BrokenImages(self.files, self.data.broken_limit)
        return dataset

    def check(self, recipe: Recipe, model: Classifier) -> None:
        super().check(recipe, model)
        if self.files.index.is_remote and recipe.training.sampling != "all":
            raise ValueError(
                "balanced sampling takes images of all shards at once: fetch them onto this machine, or leave "
                "--training.sampling out"
            )

    def fit_standardizer(self, model: Classifier) -> None:
        # a few images say the mean of a channel to a thousandth of its spread
        rows = self.split.train
        # of remote shards those of the first window alone
        order = (
            self.order(rows, seed=0, epoch=0)
            if self.files.index.is_remote
            else rows[epoch_order(len(rows), seed=0, epoch=0)]
        )
        images = torch.cat(
            [
                chunk.images
                for chunks in self.read(order[:_STANDARD_IMAGES], None, [order[:_STANDARD_IMAGES]], workers=0)
                for chunk in chunks
            ]
        )
        standardizer = Standardizer.fit(images.permute(0, 3, 1, 2), "image")
        model.standardize.load_state_dict(standardizer.state_dict())

    def order(self, rows: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Samples in the order of an epoch: any, or of remote shards one that needs few of them at a time."""
        if not self.files.index.is_remote:
            return rows[epoch_order(len(rows), seed=seed, epoch=epoch)]
        shards = self.files.index.shard[self.files.rows]
        return torch.from_numpy(windowed_order(shards, rows.numpy(), self.files.window, seed=seed, epoch=epoch))

    def read(
        self,
        rows: Tensor,
        variation: Variation | None,
        batches: Sequence[Tensor],
        *,
        places: Sequence[Tensor] | None = None,
        workers: int | None = None,
        pin_memory: bool = False,
    ) -> Iterator[list[Chunk]]:
        """Chunks of one batch of samples after the other; what is broken is counted.

        Args:
            rows: samples that places count from 0 on, where none are given.
            variation: of training images; None to evaluate.
            batches: indices of the samples.
            places: of each in the epoch or part; by default in turn.
            workers: processes; by default as many as the recipe says, or the machine has.
            pin_memory: for a device that images are copied to.
        """
        if places is None:
            places = list(torch.arange(len(rows)).split([len(batch) for batch in batches]))
        shares = [Share(batch.cpu().numpy(), place.cpu().numpy()) for batch, place in zip(batches, places, strict=True)]
        images = ShardImages(self.files, self.labels.numpy(), self.split.train.numpy(), variation)
        workers = self.readers if workers is None else workers
        with closing(read_ahead(images, shares, workers=workers, pin_memory=pin_memory)) as chunks_of:
            for chunks in chunks_of:
                for chunk in chunks:
                    self.broken.add(chunk.broken)
                yield chunks

    @property
    def readers(self) -> int:
        """Processes that read for this one."""
        assert isinstance(self.data, ImageData)
        if self.data.readers is not None:
            return self.data.readers
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of this machine, as the launcher says
        return min(_MOST_READERS, max(1, processors() // beside))

    def loop(self, setup: Setup) -> Loop:
        return ShardLoop(self, setup)

    def stream(
        self,
        indices: Tensor,
        features_of: Callable[[Tensor], Tensor],
        *,
        share_of: Callable[[Tensor], Tensor] = lambda batch: batch,
        processes: int = 1,
        device: torch.device | None = None,
        feature_dim: int,
    ) -> Stream:
        """Features of some samples, made batch by batch.

        Args:
            indices: of the samples.
            features_of: features ``[n, D]`` of raw images ``[n, 3, H, W]``.
            share_of: the part of a batch that this process takes.
            processes: that share a batch.
            device: where features are made.
            feature_dim: D.
        """
        side = self.files.size[0]
        size = processes * max(1, min(_EVALUATION_IMAGES, _EVALUATION_PIXELS // (side * side * 3)))
        labels, device = self.labels[indices], device or torch.device("cpu")

        def read(places: Tensor) -> Iterator[FeatureRows]:
            shares = [share_of(batch) for batch in places.split(size)]
            batches = [indices[share] for share in shares]
            pinned = device.type == "cuda"
            for chunks in self.read(indices, None, batches, places=shares, pin_memory=pinned):
                there = [chunk for chunk in chunks if len(chunk.usable)]
                if not there:
                    yield FeatureRows(torch.empty(0, feature_dim, device=device), labels[:0].to(device), places[:0])
                    continue
                with torch.no_grad():
                    features = features_of(_joined([chunk.images for chunk in there], device))
                usable = torch.cat([chunk.usable for chunk in there])
                yield FeatureRows(features, labels[usable].to(device), usable)

        return Stream(labels, size, read)

    def streams(self, model: Classifier) -> dict[str, Stream]:
        device = model.standardize.mean.device
        return {
            name: self.stream(indices, model, device=device, feature_dim=model.objective.feature_dim)
            for name, indices in self.parts_to_judge.items()
        }

    def features(self, model: Classifier, indices: Tensor) -> Features:
        stream = self.stream(indices, model, feature_dim=model.objective.feature_dim)
        return stream.collect(torch.arange(len(indices)))[0]

    def outcome(self, loop: Loop, neighbors_limit: int | None, on_stage: Stages) -> Outcome:
        assert isinstance(loop, ShardLoop)
        model = loop.evaluated.eval()
        with loop.evaluating(model):
            streams = {name: loop.stream(model, indices) for name, indices in self.parts_to_judge.items()}
            outcome = judge_streams(model, streams, self.signature.class_names, neighbors_limit, on_stage)
        loop.hear_of_broken()
        self.skipped = (*self.skipped, *self.broken.listed())
        for line in left_out_in_words(self.skipped):
            on_stage(line)
        return outcome


def _joined(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Images ``[n, 3, H, W]`` on the device, of chunks ``[·, H, W, 3]``; channels stay last in memory."""
    moved = [part.to(device, non_blocking=True) for part in images]
    return (moved[0] if len(moved) == 1 else torch.cat(moved)).permute(0, 3, 1, 2)


class ShardLoop(Loop):
    """Trains on images of shards: each process reads its own share of each batch.

    Crops and mirroring are done while images are read; what else the recipe varies, on the device.
    """

    def __init__(self, source: ShardSource, setup: Setup) -> None:
        super().__init__(setup, source.labels, source.split)
        self.source, self.objective_views = source, setup.model.objective.views
        varied = setup.training.augmentation
        self.crops = varied.enabled or self.objective_views > 1
        shift = 0 if varied.crop_scale is not None and varied.shift is None else varied.shift
        rest = replace(varied, crop_scale=None, flip=False, shift=shift)
        self.varies_on_device = self.crops and bool(
            rest.shift is None or rest.shift or rest.noise or rest.rotation or rest.cutout or rest.varies_color
        )
        self.views = ViewMaker(replace(rest, enabled=self.varies_on_device), "image", 1, setup.training.seed)

    def epoch_samples(self) -> Tensor:
        if self.training.sampling != "all" or not self.source.files.index.is_remote:
            return super().epoch_samples()
        return self.source.order(self.split.train, seed=self.training.seed, epoch=self.progress.epoch)

    @contextmanager
    def reading(self, batches: Sequence[Tensor]) -> Iterator[None]:
        first = self.progress.step * self.training.batch_size
        shares, places = [], []
        for batch in batches:
            for micro in self.micro_batches(batch):
                shares.append(self.share_of(micro))
                places.append(self.share_of(torch.arange(first, first + len(micro))))
                first += len(micro)
        variation = self._variation()
        self._side = variation.side
        chunks_of = self.source.read(
            self.split.train, variation, shares, places=places, pin_memory=self.fabric.device.type == "cuda"
        )
        with closing(chunks_of) as self._chunks:  # type: ignore[type-var]
            yield
        self.hear_of_broken()

    def _variation(self) -> Variation:
        training, epoch = self.training, self.progress.epoch
        assert isinstance(self.source.data, ImageData)
        side, sizes = self.source.data.image_size, training.image_sizes
        if sizes:
            side = min(side, sizes[epoch * len(sizes) // training.epochs])
        varied = training.augmentation
        scale = varied.crop_scale if self.crops else None
        return Variation(training.seed, epoch, side, scale, self.crops and varied.flip, self.objective_views)

    def forward(self, share: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, None]:
        chunks, views = next(self._chunks), self.objective_views
        # a last batch may be smaller than there are processes
        none = torch.empty(0, self._side, self._side, 3, dtype=torch.uint8)
        raw = _joined([chunk.images for chunk in chunks] or [none], self.fabric.device)
        start = sum(process_shares(len(micro), self.fabric.world_size)[: self.fabric.global_rank])
        seen = [
            self._view(raw[view::views], slice(start, start + len(share)), len(micro), (*at, view))
            for view in range(views)
        ]
        inputs = seen[0] if views == 1 else torch.cat(seen)
        return split_views(self.network(inputs), views), None

    def _view(self, raw: Tensor, place: slice, count: int, at: tuple[int, ...]) -> Tensor:
        if not self.varies_on_device:
            return self.views(raw, slice(None), self.model.standardize, self.dtype, at)
        whole = raw
        if len(raw) < count:
            # what a sample looks like depends on its place in the micro-batch of all processes, and on no other sample
            whole = raw.new_zeros((count, *raw.shape[1:]))
            whole[place] = raw
        return self.views(whole, place, self.model.standardize, self.dtype, at)

    def stream(self, model: Classifier, indices: Tensor) -> Stream:
        """Features of some samples, of which each process makes its own share."""

        def features_of(images: Tensor) -> Tensor:
            with self.fabric.autocast():
                features: Tensor = model(images)
            if not bool(features.isfinite().all()):
                raise self.diverged("features are not finite")
            return features.to(self.dtype)

        return self.source.stream(
            indices.cpu(),
            features_of,
            share_of=self.share_of,
            processes=self.fabric.world_size,
            device=self.fabric.device,
            feature_dim=model.objective.feature_dim,
        )

    @torch.no_grad()
    def extract(self, indices: Tensor, model: Classifier | None = None) -> Features:
        model = self.evaluated if model is None else model
        with self.evaluating(model):
            return self.stream(model, indices).collect(torch.arange(len(indices)))[0]

    def features_of(self, model: Classifier, indices: Tensor) -> Tensor:
        return self.stream(model, indices).collect(torch.arange(len(indices)))[0].features

    @torch.no_grad()
    def validate(self) -> dict[str, float | None]:
        if len(self.split.validation) == 0:
            return {}
        model = self.evaluated
        classes, device = model.objective.num_classes, self.fabric.device
        scores, information = StreamedScores(classes), accumulator_for(model)
        with self.evaluating(model):
            for rows in self.stream(model, self.split.validation).all():
                if len(rows.labels):
                    log_p = model.log_proba(rows.features, "head")
                    if not bool(log_p.isfinite().all()):
                        raise self.diverged("scores are not finite")
                    scores.update(log_p, rows.labels)
                    information.update(model.objective.log_distribution(rows.features), rows.labels)
        scores.gather(device)
        right = scores.column("decided") == scores.column("label")
        measures = information_of(information, synchronize=True)
        return {
            "validation_loss": -float(scores.column("own").mean()),
            "validation_accuracy": float(right.double().mean()),
            "validation_cmi": measures.cmi,
            "validation_separation": measures.separation,
            "validation_ncmi": measures.ncmi,
        }

    def put_centroids_to_class_means(self) -> None:
        for model in [self.model] if self.average is None else [self.model, self.evaluated]:
            if model.objective.sets_centroids:
                with self.evaluating(model):
                    batches = self.stream(model, self.split.train).all()
                    classifier = model.objective.centroid_classifier().to(self.fabric.device)
                    classifier.fit((rows.features, rows.labels) for rows in batches if len(rows.labels))
                model.objective.set_centroids(classifier.centroids.to(self.dtype))

    def hear_of_broken(self) -> None:
        """Let each process know of the broken images that any has met: their limit is one of all. Each must call it."""
        broken = self.source.broken
        mine = torch.tensor(sorted(broken.reasons), dtype=torch.int64)
        broken.hear(sorted(set(all_rows(mine, self.fabric.device).tolist())))
