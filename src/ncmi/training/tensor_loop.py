"""The training loop over a data set that lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ncmi.data import Dataset, Split, process_shares
from ncmi.distributed import gather_rows
from ncmi.recipes import Training
from ncmi.training.evaluate import Features, accuracy, information
from ncmi.training.loop import Loop
from ncmi.training.model import Model
from ncmi.training.run_folder import RunFolder
from ncmi.training.views import ViewMaker, split_views

_EVALUATION_BATCH = 1024


class TensorLoop(Loop[Model]):
    """Trains a model on the training part of a data set in memory, which is moved to the device; see :class:`Loop`."""

    def __init__(
        self,
        fabric: Fabric,
        model: Model,
        dataset: Dataset,
        split: Split,
        training: Training,
        folder: RunFolder,
        on_epoch: Sequence[Callable[[dict[str, Any]], None]],
    ) -> None:
        super().__init__(fabric, model, dataset.labels, split, training, folder, on_epoch)
        self.inputs = dataset.inputs.to(fabric.device)
        self.views = ViewMaker(training.augmentation, dataset.kind, model.objective.views, training.seed)

    def own_features(self, own: Tensor, micro: Tensor, at: tuple[int, int, int]) -> tuple[Tensor, None]:
        shares = process_shares(len(micro), self.fabric.world_size)
        start = sum(shares[: self.fabric.global_rank])
        place = slice(start, start + len(own))
        inputs = self.views(self.inputs.index_select(0, micro), place, self.model.standardise, self.dtype, at)
        return split_views(self.backbone(inputs), self.model.objective.views), None

    @torch.no_grad()
    def extract(self, indices: Tensor, model: Model | None = None) -> Features:
        model = self.evaluated if model is None else model
        indices = indices.to(self.fabric.device)
        parts = []
        with self.evaluating(model):
            for batch in indices.split(_EVALUATION_BATCH):
                own = self.inputs[self.own_share(batch)]
                with self.fabric.autocast():
                    features = model.backbone(model.standardise(own).to(self.dtype))
                shares = process_shares(len(batch), self.fabric.world_size)
                parts.append(gather_rows(features.to(self.dtype), shares))
        whole = torch.cat(parts)
        if not bool(whole.isfinite().all()):
            raise self.diverged("features are not finite")
        return Features(whole, self.labels[indices])

    def validate(self) -> dict[str, float | None]:
        names = ("accuracy", "cmi", "separation", "ncmi")
        if len(self.split.validation) == 0:
            return {f"validation_{name}": None for name in names}
        self.evaluated.eval()
        validation = self.extract(self.split.validation)
        scores = self.evaluated.objective.scores(validation.features)
        if not bool(scores.isfinite().all()):
            raise self.diverged("scores are not finite")
        measured = {"accuracy": accuracy(scores, validation.labels), **information(self.evaluated, validation)}
        return {f"validation_{name}": measured[name] for name in names}

    def judge(self, row: dict[str, Any]) -> list[float] | None:
        return None if row["validation_accuracy"] is None else [row["validation_accuracy"]]
