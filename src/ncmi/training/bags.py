"""Bags in a run: read while the network works on those before them, split by patient; attention over some of them."""

import csv
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.data.bags.bag import Bag, BagError, BagSource
from ncmi.data.bags.cohort import Cohort, load_cohort
from ncmi.data.bags.simulated import is_simulated
from ncmi.data.bags.splits import CohortSplit, cohort_changes, describe_cohort, split_cohort
from ncmi.data.bags.stream import BagCache, BagStream, pad_bags, subsample, usable_bags
from ncmi.data.signature import Signature
from ncmi.data.standardize import RunningScale
from ncmi.errors import left_out_in_words
from ncmi.files import write_atomically, write_json
from ncmi.networks.bags.packing import PackedNetwork
from ncmi.readouts.scores import by_group, judge
from ncmi.recipes import BagData, Recipe
from ncmi.training.judging import Features, Judgment
from ncmi.training.loop import Loop, Setup
from ncmi.training.model import Classifier
from ncmi.training.run_folder import RunFolder, RunFolderError, write_arrays
from ncmi.training.schema import DataRecord, EpochMetrics
from ncmi.training.sources import Source

COHORT = "cohort.json"
_ROWS = 8192  # of features that are standardized at once
_TABLE_READOUTS = ("head", "cc", "lp")


class CohortSource(Source):
    """A cohort of bags, split by patient.

    Args:
        recipe: of the run.
        cohort: of the recipe's data, where it has been loaded already.
        read: read all features once, to know that they can be used.

    Raises:
        ValueError: for a cohort or split that cannot be trained on; the message names the cure.
    """

    data: BagData
    split: CohortSplit

    def __init__(self, recipe: Recipe, cohort: Cohort | None = None, *, read: bool = True) -> None:
        assert isinstance(recipe.data, BagData)
        self.data = recipe.data
        self.cohort = load_cohort(self.data, read=read) if cohort is None else cohort
        self.split = split_cohort(self.cohort, self.data, recipe.training.seed)
        self.labels = self.cohort.labels
        self.cache = BagCache(self.data.cache_gigabytes)
        self.simulation = is_simulated(self.data.name)
        self.skipped = (*self.cohort.skipped, *self.split.left_out)
        self.signature = Signature(
            kind="bags",
            sample_shape=(self.cohort.feature_dim,),
            class_names=self.cohort.class_names,
            encoder=self.cohort.encoder,
        )
        self.notes = self.cohort.notes

    def groups(self, indices: Tensor) -> list[Hashable] | None:
        return [self.cohort.slides[index].patient for index in indices.tolist()]

    def check(self, recipe: Recipe, model: Classifier) -> None:
        training = recipe.training
        if len(self.split.validation) == 0 and (training.selection == "best" or training.patience is not None):
            raise ValueError(
                f"the split of {len(set(self.cohort.patients))} patients has no validation part to select by: give "
                "more patients, a larger --data.validation-fraction, or --training.selection last"
            )
        if model.objective.views > 1:
            raise ValueError(f"{recipe.objective.name} needs several views of each sample, which bags do not have")

    def fit_standardizer(self, model: Classifier) -> None:
        if not self.data.standardize:
            return
        moments = RunningScale()
        for bag in BagStream(self.cohort.source, self.names(self.split.train), cache=self.cache):
            moments.update(bag.features)
        mean, scale = moments.result(rounding=1e-7)
        model.standardize.load_state_dict({"mean": mean.float(), "scale": scale.float()})

    def names(self, indices: Tensor) -> list[str]:
        """Names of some bags."""
        return [self.cohort.slides[index].name for index in indices.tolist()]

    def loop(self, setup: Setup) -> Loop:
        return BagLoop(self, setup)

    def features(self, model: Classifier, indices: Tensor) -> Features:
        return _cohort_features(model, self.cohort, indices)

    def ood_features(self, model: Classifier, name: str) -> Tensor:
        unlabeled = replace(self.data, name=name, labels=None, slide_table=None, classes=())
        cohort = load_cohort(unlabeled, need_labels=False)
        _check_like(model, cohort, name)
        return vectors_of(model, BagStream(cohort.source, cohort.names))

    def describe_inputs(self) -> str:
        patients = len(set(self.cohort.patients))
        slides = sum(len(slide.names) for slide in self.cohort.slides)
        return f"{slides:,} slides of {patients:,} patients, features of width {self.cohort.feature_dim}"

    def begin(self, folder: RunFolder, record: DataRecord) -> None:
        super().begin(folder, record)
        write_json(folder.path / COHORT, describe_cohort(self.cohort, self.split))

    def check_unchanged(self, folder: RunFolder, record: DataRecord) -> None:
        if not (folder.path / COHORT).exists():
            return
        if changes := cohort_changes(folder.read(COHORT), self.cohort, self.split):
            raise RunFolderError(
                f"{folder.path}: features or labels have changed since this run was begun: {'; '.join(changes)}. "
                "Bring them back as they were, or train anew into another folder"
            )

    def output_arrays(self, judgment: Judgment) -> dict[str, Any]:
        test = self.judged
        probabilities = {f"probability_{name}": log_p.double().exp() for name, log_p in judgment.log_p["test"].items()}
        return {
            **{name: values.cpu().numpy() for name, values in probabilities.items()},
            "groups": np.array([str(group) for group in self.groups(test) or ()]),
        }

    def write_outputs(
        self, folder: RunFolder, model: Classifier, judgment: Judgment, parts: dict[str, Features]
    ) -> None:
        self._write_table(folder.path / "slides.csv", model, parts)
        self._write_patients(folder.path / "patients.csv", model, parts)
        if self.data.attention_slides:
            self._write_attention(folder.path / "attention", model, judgment)

    @torch.no_grad()
    def _write_table(self, path: Path, model: Classifier, parts: dict[str, Features]) -> None:
        """A line for each slide of each part, with the read-outs' probabilities and the distances to the centroids."""
        classes = self.cohort.class_names
        heading = ["slide", "patient", "part", "label", "instances"]
        heading += ["slides"] if self.data.unit == "patient" else []
        heading += [f"{readout}:{name}" for readout in _TABLE_READOUTS for name in classes]
        heading += [f"distance:{name}" for name in classes]

        names = {"test": self.judged_part}
        tables = self.parts_to_judge
        if self.judged_part == "train":
            del tables["train"]  # it is there as what is judged

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(heading)
                for part, indices in tables.items():
                    features = parts[part].features
                    columns = [model.log_proba(features, name).double().exp() for name in _TABLE_READOUTS]
                    numbers = torch.cat([*columns, model.cc.divergences(features).double()], 1).cpu().tolist()
                    for row, index in zip(numbers, indices.tolist(), strict=True):
                        slide = self.cohort.slides[index]
                        about = [slide.name, slide.patient, names.get(part, part), classes[int(self.labels[index])]]
                        counts = [self.cohort.instances[index], *([len(slide.slides)] if slide.slides else ())]
                        # nine digits: what is judged from this file is judged as it was in single precision
                        writer.writerow([*about, *counts, *(f"{number:.9g}" for number in row)])

        write_atomically(path, write)

    @torch.no_grad()
    def _write_patients(self, path: Path, model: Classifier, parts: dict[str, Features]) -> None:
        """A line for each patient of a part in which patients have labels of their own, and several slides."""
        classes = self.cohort.class_names
        rows = [["patient", "part", "label", "slides", *(f"{r}:{name}" for r in _TABLE_READOUTS for name in classes)]]
        for part, features in parts.items():
            slides = Counter(features.groups or ())
            pooled = [
                by_group(model.log_proba(features.features, name).cpu(), features.labels.cpu(), features.groups or ())
                for name in _TABLE_READOUTS
            ]
            if pooled[0] is None:
                continue
            label, patients = pooled[0][1], pooled[0][2]
            numbers = np.exp(np.concatenate([each[0] for each in pooled if each is not None], axis=1))
            name = self.judged_part if part == "test" else part
            for row, patient in enumerate(patients):
                about = [str(patient), name, classes[label[row]], str(slides[patient])]
                rows.append([*about, *(f"{number:.9g}" for number in numbers[row].tolist())])

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)

        if len(rows) > 1:
            write_atomically(path, write)

    def _write_attention(self, folder: Path, model: Classifier, judgment: Judgment) -> None:
        """The attention over some test slides, one file each; see :func:`slides_to_show`."""
        test = self.judged
        probabilities = judgment.log_p["test"][model.objective.readouts[0]].double().exp().cpu().numpy()
        folder.mkdir(exist_ok=True)
        for row in slides_to_show(self.labels[test].numpy(), probabilities, self.data.attention_slides):
            write_attention(folder, model, self.cohort.source.load(self.names(test)[row]))


def patients_share_labels(folder: RunFolder) -> bool:
    """Whether in a run's cohort no patient has slides of several classes, so that labels may be the patients'."""
    classes: dict[str, set[str]] = {}
    for patient, label, *_ in folder.read(COHORT).get("slides", {}).values():
        classes.setdefault(patient, set()).add(label)
    return all(len(labels) == 1 for labels in classes.values())


def other_bags(model: Classifier, data: BagData) -> tuple[Features, tuple[str, ...]]:
    """Features of other labeled bags; see :func:`ncmi.training.sources.other_features`."""
    other = load_cohort(replace(data, classes=model.signature.class_names))
    _check_like(model, other, data.name)
    features = _cohort_features(model, other, torch.arange(len(other.slides)))
    return features, (*other.notes, *left_out_in_words(other.skipped))


def _check_like(model: Classifier, cohort: Cohort, name: str) -> None:
    trained = model.signature.sample_shape[0]
    if cohort.feature_dim != trained:
        what = f"features of width {cohort.feature_dim}, but the run was trained on {trained}"
    elif cohort.encoder and model.signature.encoder and cohort.encoder != model.signature.encoder:
        what = f"features by the encoder {cohort.encoder}, but the run was trained on {model.signature.encoder}"
    else:
        return
    raise BagError(f"{name}: {what}: embed the slides by the encoder that the training slides were embedded by")


def unknown_encoder(model: Classifier, source: BagSource, names: Sequence[str]) -> tuple[str, ...]:
    """A note where it cannot be known whether bags are of the encoder that a model was trained on."""
    trained = model.signature.encoder
    silent = sum(source.encoder(name) is None for name in names)
    if trained and not silent:
        return ()
    whose = f"{silent} of {len(names)} slides" if trained else "the run's own features"
    whom = f", {trained}" if trained else ""
    return (f"{whose} do not say which encoder made them: see that it is the one of the training slides{whom}",)


@torch.no_grad()
def vectors_of(model: Classifier, bags: Iterator[Bag] | BagStream) -> Tensor:
    """Vectors ``[n, D]`` of bags by a model in evaluation mode, on the CPU."""
    return torch.stack([model(bag.features).vector for bag in bags])


def _cohort_features(model: Classifier, cohort: Cohort, indices: Tensor) -> Features:
    names = [cohort.slides[index].name for index in indices.tolist()]
    patients = [cohort.slides[index].patient for index in indices.tolist()]
    return Features(vectors_of(model, BagStream(cohort.source, names)), cohort.labels[indices], patients)


@torch.no_grad()
def write_attention(folder: Path, model: Classifier, bag: Bag) -> None:
    """Write the attention of a model in evaluation mode over a bag: a file a slide, called by it."""
    attention = model(bag.features.to(model.standardize.mean.device)).attention
    for slide, arrays in _arrays_by_slide(attention, bag):
        write_arrays(folder / f"{slide}.npz", arrays)


def _arrays_by_slide(attention: Tensor, bag: Bag) -> Iterator[tuple[str, dict[str, Any]]]:
    """Attention ``[N]`` over a bag with where its instances lie, of a patient's bag slide by slide.

    The attention of a patient's slide is that over the patient; ``share`` is how much of it the slide has.
    """
    if not bag.slides:
        yield bag.name, _arrays_of(attention, bag)
        return
    for slide, part in zip(bag.slides, attention.split([len(slide.features) for slide in bag.slides]), strict=True):
        about = {"patient": np.str_(bag.name), "share": np.float64(part.double().sum().item())}
        # in single precision a slide may have nothing at all; which of its patches have least is then not known
        part = part if part.any() else torch.full_like(part, torch.finfo(part.dtype).tiny)
        yield slide.name, {**_arrays_of(part, slide), **about}


def _arrays_of(attention: Tensor, bag: Bag) -> dict[str, Any]:
    arrays: dict[str, Any] = {"attention": attention.float().cpu().numpy()}
    if bag.coords is not None:
        arrays["coords"] = bag.coords.numpy()
    if bag.patch_size is not None:
        arrays["patch_size"] = np.float64(bag.patch_size) if bag.unit == "um" else np.int64(bag.patch_size)
    if bag.unit == "um":
        arrays["unit"] = np.str_(bag.unit)
    return arrays


@dataclass(frozen=True, eq=False)
class AttendedBag:
    """What a finished run makes of one slide: its arrays of attention, and the probability ``[C]`` of each class.

    Of a patient's slides, where they are one bag, the probabilities are the patient's.
    """

    name: str
    arrays: dict[str, Any]
    probabilities: NDArray[np.float64]


def attend_bags(
    model: Classifier,
    source: BagSource,
    names: Sequence[str] | None = None,
    *,
    on_bad: Callable[[str, str], None] | None = None,
) -> Iterator[AttendedBag]:
    """The attention of a finished run over bags, labeled or not, one slide after the other.

    Args:
        model: in evaluation mode.
        source: of the bags.
        names: which of them; by default all.
        on_bad: told name and reason of each that cannot be used; by default that is an error.
    """
    readout = model.objective.readouts[0]
    width, encoder = model.signature.sample_shape[0], model.signature.encoder
    for bag in usable_bags(source, width, encoder=encoder, names=names, on_bad=on_bad):
        with torch.inference_mode():
            output = model.network(_standardized(model, bag.features))
            log_p = model.log_proba(output.vector.unsqueeze(0), readout)[0]
        for slide, arrays in _arrays_by_slide(output.attention, bag):
            yield AttendedBag(slide, arrays, log_p.double().exp().numpy())


def _standardized(model: Classifier, features: Tensor) -> Tensor:
    """Features ``[N, D_feat]`` as the network takes them; of the largest slides there is one copy, or none."""
    scaler = model.standardize
    unscaled = bool((scaler.mean == 0).all()) and bool((scaler.scale == 1).all())
    if unscaled and isinstance(model.network, PackedNetwork):
        return features  # its first layer takes them in any precision
    result = torch.empty(features.shape, dtype=model.dtype)
    for rows, part in zip(result.split(_ROWS), features.split(_ROWS), strict=True):
        rows.copy_(scaler(part))
    return result


def slides_to_show(labels: NDArray[np.int64], probabilities: NDArray[np.float64], most: int) -> list[int]:
    """Rows to look at: in turn through the classes the surest right slide, then the surest wrong one, and so on."""
    decided = probabilities.argmax(1)
    sure = probabilities.max(1)
    queues = []
    for right in (True, False):
        for label in np.unique(labels):
            rows = np.flatnonzero((labels == label) & ((decided == labels) == right))
            queues.append(rows[np.argsort(-sure[rows], kind="stable")].tolist())
    shown: list[int] = []
    while len(shown) < most and any(queues):
        for queue in queues:
            if queue and len(shown) < most:
                shown.append(queue.pop(0))
    return shown


class BagLoop(Loop):
    """Trains on bags, which are read in the background; see :class:`ncmi.training.loop.Loop`."""

    def __init__(self, source: CohortSource, setup: Setup) -> None:
        super().__init__(setup, source.labels, source.split)
        self.source = source
        self._stream: Iterator[Bag] = iter(())
        self._steps = max(1, self.training.epochs * self.num_batches)

    @contextmanager
    def reading(self, batches: Sequence[Tensor]) -> Iterator[None]:
        order = [index for batch in batches for micro in self.micro_batches(batch) for index in self.share_of(micro)]
        with self._bags(torch.stack(order) if order else torch.empty(0, dtype=torch.long)) as stream:
            self._stream = stream
            yield

    def _bags(self, indices: Tensor) -> closing[Generator[Bag, None, None]]:
        source = self.source
        return closing(iter(BagStream(source.cohort.source, source.names(indices), cache=source.cache)))

    def forward(self, share: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
        model = self.model
        model.bag_network.set_progress(self.progress.total_steps / self._steps)
        bags = []
        for index in share.tolist():
            bag = next(self._stream)
            if self.source.data.train_instances:
                bag = subsample(bag, self.source.data.train_instances, (self.training.seed, *at, index))
            bags.append(self._instances(model, bag))
        if not bags:
            # an epoch's last batch may be smaller than the number of processes; every process goes through the
            # network all the same, as all wait for each other's gradients
            nothing = self.network(model.standardize.mean.new_zeros((1, 1, self.source.cohort.feature_dim)))
            return nothing.vector[:0], None if nothing.penalty is None else nothing.penalty * 0
        if len(bags) == 1:
            features, mask = bags[0].unsqueeze(0), None
        else:
            features, mask = pad_bags(bags)
        output = self.network(features, mask)
        return output.vector, output.penalty

    def _instances(self, model: Classifier, bag: Bag) -> Tensor:
        instances: Tensor = model.standardize(bag.features.to(self.fabric.device))
        return instances.to(model.dtype)

    def after_step(self) -> None:
        self.model.bag_network.update()

    def features_of(self, model: Classifier, indices: Tensor) -> Tensor:
        share = self.share_of(indices)
        # one tensor for all: small ones that outlive their bags would lie in the holes that these leave in memory, so
        # that the next bag finds no place in them, and memory grows by a bag with every bag
        vectors = torch.empty((len(share), model.objective.feature_dim), dtype=self.dtype, device=self.fabric.device)
        with self._bags(share) as bags:
            for row, bag in enumerate(bags):
                with self.fabric.autocast():
                    vectors[row] = model.network(self._instances(model, bag)).vector
        return self.gather(vectors, indices)

    def ranking(self, log_p: Tensor, labels: Tensor) -> dict[str, float | None]:
        """Macro F1, and macro AUC, 0.5 where no class can be ranked."""
        scores = judge(log_p, labels, self.source.cohort.class_names, per_class=False)
        auc = scores.macro_auc.value
        return {"macro_f1": scores.macro_f1.value, "macro_auc": 0.5 if auc is None else auc}

    def judge(self, row: EpochMetrics) -> list[float] | None:
        """Macro AUC, and where that is the same (small parts have few values of it) the lower validation loss."""
        if row.validation_macro_auc is None or row.validation_loss is None:
            return None
        return [row.validation_macro_auc, -row.validation_loss]
