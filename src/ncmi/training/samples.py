"""Tables and images in a run: samples in memory or in files, varied in batches on the training device."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ncmi.data.augmentation import augment_colors, augment_images, augment_table
from ncmi.data.batches import process_shares
from ncmi.data.dataset import Dataset, fingerprint
from ncmi.data.image_files import ImageFiles
from ncmi.data.kinds import EMBEDDED, find_data
from ncmi.data.load import check_kind, known_labels, load_embedded, load_new, load_ood, of_form
from ncmi.data.signature import Signature
from ncmi.data.splits import Split, noisy_labels, split_dataset
from ncmi.data.standardize import Standardizer
from ncmi.data.tables.table import LabeledTable
from ncmi.errors import left_out_in_words, naming
from ncmi.networks.resnet import LEAST_SIDE
from ncmi.recipes import Augmentation, Data, ImageData, Kind, Recipe, SampleData, TableData
from ncmi.training.judging import Features, Judgment
from ncmi.training.loop import Loop, Setup
from ncmi.training.model import Classifier
from ncmi.training.schema import Contents
from ncmi.training.sources import Source

_EVALUATION_BATCH = 1024
_EVALUATION_VALUES = 2**23


class SampleSource(Source):
    """Samples in memory, with the recipe's wrong labels in the training part.

    Args:
        recipe: of the run.
        samples: as they are read; they are left as they are.

    Raises:
        ValueError: for data that cannot be split as the recipe asks.
    """

    def __init__(self, recipe: Recipe, samples: Dataset | LabeledTable) -> None:
        assert isinstance(recipe.data, TableData | ImageData)
        self.data = recipe.data
        check_kind(samples, self.data)
        seed = self.data.seed_of_split(recipe.training.seed)
        self.split = split_of(self.data, samples, seed)
        self.given, self.labels = samples.labels, samples.labels
        self.skipped, self.notes = samples.left_out, samples.notes
        if self.data.label_noise > 0:
            noisy = noisy_labels(
                self.labels, len(samples.class_names), self.data.label_noise, self.data.noise_kind, seed
            )
            self.labels = self.labels.clone()
            self.labels[self.split.train] = noisy[self.split.train]
        self.dataset = self.encode(samples)
        self.notes = (*self.notes, *self._repeats(samples))

    def encode(self, samples: Dataset | LabeledTable) -> Dataset:
        """The samples as the network takes them; sets the signature."""
        assert isinstance(samples, Dataset)
        self.signature = Signature(
            kind=samples.kind,
            sample_shape=samples.sample_shape,
            class_names=tuple(map(str, samples.class_names)),  # NumPy's text is no JSON
            feature_names=samples.feature_names,
        )
        return samples

    def _repeats(self, samples: Dataset | LabeledTable) -> list[str]:
        """Rows of a table that are tested on after they were trained on: their scores say nothing of new data."""
        assert isinstance(self.data, TableData | ImageData)
        test = self.split.test.numpy()
        # of a test file the loader says it
        if samples.kind != "table" or self.data.test is not None or len(test) == 0:
            return []
        import pandas as pd

        from ncmi.data.tables.load import repeated_rows

        frame = pd.DataFrame(samples.array.numpy()) if isinstance(samples, Dataset) else samples.rows.frame
        count = repeated_rows(frame, test, self.split.train.numpy())
        if count < 0.1 * len(test):
            return []
        return [
            f"{count} of {len(test)} test rows have the features of a training row: where these are the same samples, "
            "scores are too good; drop duplicates, or keep what belongs together on one side (--data.group-column)"
        ]

    def check(self, recipe: Recipe, model: Classifier) -> None:
        training = recipe.training
        if len(self.split.validation) == 0 and (training.selection == "best" or training.patience is not None):
            raise ValueError(
                "there is no validation part to select by: give a larger --data.validation-fraction, or "
                "--training.selection last without --training.patience"
            )
        if not training.image_sizes:
            return
        if len(self.signature.sample_shape) != 3 or recipe.network.name == "mlp":
            raise ValueError(
                f"image_sizes={training.image_sizes}: only networks of images of any size can train on smaller ones: "
                "leave --training.image-sizes out, or for images use --network.name resnet_small"
            )
        if recipe.network.name.startswith("resnet9") and min(training.image_sizes) < LEAST_SIDE:
            raise ValueError(
                f"image_sizes={training.image_sizes}: {recipe.network.name} halves images three times: "
                f"give --training.image-sizes of at least {LEAST_SIDE}, or use --network.name resnet_small"
            )

    @property
    def given_labels(self) -> Tensor:
        return self.given

    def contents(self) -> Contents:
        return Contents(ordered=fingerprint(self.dataset))

    def describe_inputs(self) -> str:
        shape = self.signature.sample_shape
        if self.signature.kind == "table":
            return f"{len(self.labels):,} rows; {shape[0]} numbers"
        return f"{len(self.labels):,} images of {shape[2]}×{shape[1]} pixels, {'gray' if shape[0] == 1 else 'RGB'}"

    def fit_standardizer(self, model: Classifier) -> None:
        standardizer = Standardizer.fit(self.dataset.inputs[self.split.train], self.dataset.kind)
        model.standardize.load_state_dict(standardizer.state_dict())

    def pictures(self, indices: Tensor) -> Tensor | None:
        if self.dataset.kind != "image":
            return None
        inputs = self.dataset.inputs
        return inputs[indices] if isinstance(inputs, Tensor) else inputs.select(indices)

    def names(self, indices: Tensor) -> list[str]:
        names = self.dataset.names
        return super().names(indices) if names is None else [names[index] for index in indices.tolist()]

    def output_arrays(self, judgment: Judgment) -> dict[str, Any]:
        if not self.data.folds:
            return {}
        # what is put together with the other folds' when they are compared
        log_p = judgment.log_p["test"]
        probabilities = {f"probability_{name}": values.double().exp().cpu().numpy() for name, values in log_p.items()}
        return {"indices": self.judged.numpy(), **probabilities}

    def loop(self, setup: Setup) -> Loop:
        return SampleLoop(self, setup)

    def features(self, model: Classifier, indices: Tensor) -> Features:
        return Features(features_of(model, self.dataset.inputs[indices]), self.labels[indices])

    def ood_features(self, model: Classifier, name: str) -> Tensor:
        assert isinstance(self.data, TableData | ImageData)
        return features_of(model, load_ood(name, self.signature, self.data))


def other_samples(model: Classifier, data: Data) -> tuple[Features, tuple[str, ...]]:
    """Features of other labeled tables or images; see :func:`ncmi.training.sources.other_features`."""
    assert isinstance(data, TableData | ImageData)
    signature = model.signature
    with naming(data.name):
        if data.name in EMBEDDED:
            other = load_embedded(data.name)
            inputs = of_form(other.array, other.kind, signature)
            return Features(features_of(model, inputs), known_labels(other.class_names, signature)[other.labels]), ()
        new = load_new(find_data(data.name, data.data_dir), signature, data, labeled=True)
        if new.reasons and data.bad == "error":
            place, reason = next(iter(new.reasons.items()))
            raise ValueError(f"{new.names[place]}: {reason} ({len(new.reasons)} such): correct or remove it")
    assert new.labels is not None
    left_out = left_out_in_words([(new.names[place], reason) for place, reason in new.reasons.items()])
    return Features(features_of(model, new.inputs), new.labels[new.usable]), (*new.notes, *left_out)


def split_of(data: SampleData, dataset: Dataset | LabeledTable, seed: int) -> Split:
    """Training, validation and test parts as a recipe has them, the same whenever they are asked for."""
    return split_dataset(
        dataset,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
        fold=data.fold,
        train_per_class=data.train_per_class,
        train_on_all=data.train_on_all,
        imbalance=data.imbalance,
        seed=seed,
    )


@torch.no_grad()
def features_of(model: Classifier, inputs: Tensor | ImageFiles) -> Tensor:
    """Features ``[N, D]`` of raw inputs by a model in evaluation mode, in batches, on the CPU."""
    return _joined((model(batch) for batch in inputs.split(_evaluation_batch(inputs))), len(inputs))


def _joined(batches: Iterable[Tensor], count: int) -> Tensor:
    """Batches of features as ``[count, D]``, each put in its place at once.

    What is small and stays must not lie in memory behind what is large and goes: the heap would grow with each batch.
    """
    whole, done = torch.empty(0), 0
    for features in batches:
        if done == 0:
            whole = features.new_empty((count, *features.shape[1:]))
        whole[done : done + len(features)] = features
        done += len(features)
    return whole


def _evaluation_batch(inputs: Tensor | ImageFiles) -> int:
    """How many samples are judged at a time; of large images fewer, as each layer makes arrays of their size."""
    return max(1, min(_EVALUATION_BATCH, _EVALUATION_VALUES // inputs.shape[1:].numel()))


class SampleLoop(Loop):
    """Trains on samples in memory, which are moved to the device, or on images in files, decoded ahead of their use.

    Of images in files each process decodes its own share alone. See :class:`ncmi.training.loop.Loop`.
    """

    def __init__(self, source: SampleSource, setup: Setup) -> None:
        super().__init__(setup, source.labels, source.split)
        training, views = setup.training, setup.model.objective.views
        inputs = source.dataset.inputs
        self.inputs = inputs.to(self.fabric.device) if isinstance(inputs, Tensor) else inputs
        self.views = ViewMaker(training.augmentation, source.dataset.kind, views, training.seed)

    @contextmanager
    def reading(self, batches: Sequence[Tensor]) -> Iterator[None]:
        shares = [self.share_of(micro) for batch in batches for micro in self.micro_batches(batch)]
        with self._samples(shares) as self._shares:
            yield

    @contextmanager
    def _samples(self, batches: Sequence[Tensor]) -> Iterator[Iterator[Tensor]]:
        """Raw inputs of one batch of indices after the other, on the device."""
        if isinstance(self.inputs, Tensor):
            # index_select: several times as fast on a CPU as indexing with a tensor
            yield map(partial(self.inputs.index_select, 0), batches)
            return
        with closing(self.inputs.batches(batches)) as images:
            yield (batch.to(self.fabric.device, non_blocking=True) for batch in images)

    def forward(self, share: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, None]:
        start = sum(process_shares(len(micro), self.fabric.world_size)[: self.fabric.global_rank])
        place = slice(start, start + len(share))
        raw = next(self._shares)
        if len(share) < len(micro):
            # what a sample looks like depends on its place in the micro-batch of all processes, and on no other sample
            whole = raw.new_zeros((len(micro), *raw.shape[1:]))
            whole[place] = raw
            raw = whole
        inputs = self.views(raw, place, self.model.standardize, self.dtype, at)
        if sizes := self.training.image_sizes:
            inputs = scaled_down(inputs, sizes[at[0] * len(sizes) // self.training.epochs])
        return split_views(self.network(inputs), self.model.objective.views), None

    def features_of(self, model: Classifier, indices: Tensor) -> Tensor:
        batches = indices.split(_evaluation_batch(self.inputs))

        def features(batch: Tensor, inputs: Tensor) -> Tensor:
            with self.fabric.autocast():
                own = model(inputs)
            return self.gather(own.to(self.dtype), batch)

        with self._samples([self.share_of(batch) for batch in batches]) as samples:
            return _joined(map(features, batches, samples), len(indices))


class ViewMaker:
    """Makes the inputs of a step from raw samples: standardized, varied where the recipe asks for it, in views.

    Its randomness depends on (seed, epoch, step, micro-batch) alone.

    Args:
        augmentation: how inputs are varied.
        kind: of the data.
        views: views that the objective needs of each sample.
        seed: of the run.
    """

    def __init__(self, augmentation: Augmentation, kind: Kind, views: int, seed: int) -> None:
        self.augmentation = augmentation
        self.kind = kind
        self.views = views
        self.seed = seed
        self.varies = augmentation.enabled or views > 1

    def __call__(
        self, inputs: Tensor, place: slice, standardize: Standardizer, dtype: torch.dtype, at: tuple[int, ...]
    ) -> Tensor:
        """The inputs ``[views·n, …]``, view by view, at a place of the micro-batch ``inputs [N, …]`` of all processes.

        Every process varies the whole micro-batch and takes its own part, so that what a sample looks like does not
        depend on the number of processes.
        """
        if not self.varies:
            return _standard(inputs[place], standardize, dtype)
        seed = np.random.SeedSequence((self.seed, *at)).generate_state(1, np.uint64)[0]
        generator = torch.Generator(inputs.device).manual_seed(int(seed >> 1))
        if self.kind == "image" and self.augmentation.varies_color:
            # before standardizing: colors vary in 0…1, and what then moves in at the border is the mean
            shown, views = inputs.float() / 255, []
            for _ in range(self.views):
                standard = _standard(augment_colors(shown, generator, self.augmentation).mul_(255), standardize, dtype)
                views.append(self._vary(standard, generator)[place])
        else:
            standard = _standard(inputs, standardize, dtype)
            views = [self._vary(standard, generator)[place] for _ in range(self.views)]
        return views[0] if self.views == 1 else torch.cat(views)

    def _vary(self, standard: Tensor, generator: torch.Generator) -> Tensor:
        vary = augment_table if self.kind == "table" else augment_images
        return vary(standard, generator, self.augmentation)


def _standard(inputs: Tensor, standardize: Standardizer, dtype: torch.dtype) -> Tensor:
    standard: Tensor = standardize(inputs)
    return standard.to(dtype)


def scaled_down(images: Tensor, side: int) -> Tensor:
    """Images ``[B, C, H, W]`` with a shorter side of so many pixels, bilinear over all that a pixel covers.

    Images that are not larger stay as they are.
    """
    height, width = images.shape[2:]
    scale = side / min(height, width)
    if scale >= 1:
        return images
    return interpolate(images, size=(round(height * scale), round(width * scale)), mode="bilinear", antialias=True)


def split_views(features: Tensor, views: int) -> Tensor:
    """Features ``[views·n, D]`` of the network as the objective takes them: ``[n, D]`` or ``[n, views, D]``."""
    return features if views == 1 else features.unflatten(0, (views, -1)).transpose(0, 1)
