"""The training loop over bags, which are read while the network works on those before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from ncmi.calibration import negative_log_likelihood
from ncmi.data import process_shares
from ncmi.distributed import gather_rows
from ncmi.recipes import SlideRecipe
from ncmi.slides.bag import Bag
from ncmi.slides.cohort import Cohort
from ncmi.slides.model import SlideModel
from ncmi.slides.splits import CohortSplit
from ncmi.slides.stream import BagCache, BagStream, pad_bags, subsample
from ncmi.training.evaluate import Features, accuracy, information
from ncmi.training.loop import Loop
from ncmi.training.run_folder import RunFolder


class BagLoop(Loop[SlideModel]):
    """Trains a slide classifier on the training part of a cohort; see :class:`ncmi.training.loop.Loop`.

    Args:
        cohort: slides, labels and where their bags come from.
        recipe: of the run, resolved.
        cache: keeps the cohort in memory where it is small enough.
    """

    split: CohortSplit

    def __init__(
        self,
        fabric: Fabric,
        model: SlideModel,
        cohort: Cohort,
        split: CohortSplit,
        recipe: SlideRecipe,
        folder: RunFolder,
        on_epoch: Sequence[Callable[[dict[str, Any]], None]],
        cache: BagCache,
    ) -> None:
        super().__init__(fabric, model, cohort.labels, split, recipe.training, folder, on_epoch)
        self.cohort, self.recipe, self.cache = cohort, recipe, cache
        self._stream: Iterator[Bag] = iter(())
        self._steps = max(1, self.training.epochs * self.num_batches)

    def epoch_samples(self) -> Tensor:
        if self.recipe.sampling == "all":
            return super().epoch_samples()
        # as many draws as there are slides, each class alike; depends on seed and epoch alone
        state = np.random.PCG64(np.random.SeedSequence((self.training.seed, self.progress.epoch, 1)))
        train, labels = self.split.train.cpu(), self.labels.cpu()[self.split.train.cpu()]
        classes = labels.unique()
        draws = torch.from_numpy((state.random_raw(2 * len(train)) >> 1).astype(np.int64)).view(2, -1)
        members = [train[labels == one] for one in classes]
        # in turn through the classes, in an order of the epoch's own
        turn = torch.arange(len(train)) % len(classes)
        turn = turn[draws[0].argsort()]
        return torch.stack(
            [members[one][draw % len(members[one])] for one, draw in zip(turn.tolist(), draws[1], strict=True)]
        )

    @contextmanager
    def reading(self, batches: Sequence[Tensor]) -> Iterator[None]:
        order = [index for batch in batches for micro in self.micro_batches(batch) for index in self.own_share(micro)]
        with self._bags(torch.stack(order) if order else torch.empty(0, dtype=torch.long)) as stream:
            self._stream = stream
            yield

    @contextmanager
    def _bags(self, indices: Tensor) -> Iterator[Iterator[Bag]]:
        names = [self.cohort.slides[index].name for index in indices.tolist()]
        with closing(iter(BagStream(self.cohort.source, names, cache=self.cache))) as stream:
            yield stream

    def own_features(self, own: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
        self.model.backbone.set_progress(self.progress.total_steps / self._steps)
        bags = []
        for index in own.tolist():
            bag = next(self._stream)
            if self.recipe.data.train_instances:
                bag = subsample(bag, self.recipe.data.train_instances, (self.training.seed, *at, index))
            bags.append(self._instances(self.model, bag))
        if not bags:
            # an epoch's last batch may be smaller than the number of processes; every process goes through the
            # network all the same, as all wait for each other's gradients
            nothing = self.backbone(self.model.mean.new_zeros((1, 1, self.model.instance_dim)))
            return nothing.vector[:0], None if nothing.penalty is None else nothing.penalty * 0
        if len(bags) == 1:
            features, mask = bags[0].unsqueeze(0), None
        else:
            features, mask = pad_bags(bags)
        output = self.backbone(features, mask)
        return output.vector, output.penalty

    def _instances(self, model: SlideModel, bag: Bag) -> Tensor:
        return model.standardise(bag.features.to(self.fabric.device))

    def after_step(self) -> None:
        self.model.backbone.update()

    @torch.no_grad()
    def extract(self, indices: Tensor, model: SlideModel | None = None) -> Features:
        model = self.evaluated if model is None else model
        indices = indices.to(self.fabric.device)
        share = self.own_share(indices)
        # one tensor for all: small ones that outlive their bags would lie in the holes that these leave in memory, so
        # that the next bag finds no place in them, and memory grows by a bag with every bag
        own = torch.empty((len(share), model.objective.feature_dim), dtype=self.dtype, device=self.fabric.device)
        with self.evaluating(model), self._bags(share) as bags:
            for row, bag in enumerate(bags):
                with self.fabric.autocast():
                    own[row] = model.backbone(self._instances(model, bag)).vector
        whole = gather_rows(own, process_shares(len(indices), self.fabric.world_size))
        if not bool(whole.isfinite().all()):
            raise self.diverged("bag vectors are not finite")
        return Features(whole, self.labels[indices])

    def validate(self) -> dict[str, float | None]:
        """Loss, macro F1, AUC, accuracy, CMI, Γ and NCMI on the validation part; None where there is none."""
        measured: dict[str, float | None] = {"train_penalty": float(self.penalty_sum) / len(self.split.train)}
        names = ("loss", "macro_f1", "auc", "accuracy", "cmi", "separation", "ncmi")
        if len(self.split.validation) == 0:
            return measured | {f"validation_{name}": None for name in names}
        validation = self.extract(self.split.validation)
        log_p = self.evaluated.log_proba(validation.features, "head")
        if not bool(log_p.isfinite().all()):
            raise self.diverged("scores are not finite")
        found = {
            "loss": negative_log_likelihood(log_p, validation.labels),
            **ranking(log_p, validation.labels),
            "accuracy": accuracy(log_p, validation.labels),
            **information(self.evaluated, validation),
        }
        return measured | {f"validation_{name}": found[name] for name in names}

    def judge(self, row: dict[str, Any]) -> list[float] | None:
        """Macro AUC, and where that is the same (small parts have few values of it) the lower validation loss."""
        if row["validation_auc"] is None:
            return None
        return [row["validation_auc"], -row["validation_loss"]]


def ranking(log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Macro F1, and the mean of the one-vs-rest AUCs of the classes that can be ranked, 0.5 where there is none."""
    probabilities, truth = log_p.double().exp().cpu().numpy(), labels.cpu().numpy()
    occurring = np.bincount(truth, minlength=probabilities.shape[1])
    ranked = np.flatnonzero((occurring > 0) & (occurring < len(truth)))
    aucs = [roc_auc_score(truth == one, probabilities[:, one]) for one in ranked]
    f1 = f1_score(truth, probabilities.argmax(1), average="macro", zero_division=0.0)
    return {"macro_f1": float(f1), "auc": float(np.mean(aucs)) if aucs else 0.5}
