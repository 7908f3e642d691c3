"""A trained model: standardiser, backbone and objective, with what is needed to use it on new data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ncmi.backbones import make_backbone
from ncmi.centroids import CentroidClassifier
from ncmi.data import Dataset, Kind, Standardiser
from ncmi.loss import NCMILoss
from ncmi.objective import Objective
from ncmi.probe import LinearProbe
from ncmi.recipes import Recipe
from ncmi.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ncmi.training.run_folder import RunFolder


@dataclass(frozen=True)
class Signature:
    """What the data looked like: enough to check and to name new data."""

    kind: Kind
    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None

    @classmethod
    def of(cls, dataset: Dataset) -> Signature:
        return cls(dataset.kind, dataset.sample_shape, dataset.class_names, dataset.feature_names)


class Classifier(nn.Module):
    """Backbone and objective, later also the fitted read-outs CC and LP.

    Args:
        backbone: from inputs to features.
        objective: on the features.
    """

    def __init__(self, backbone: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.cc = self.centroid_classifier()
        self.lp = LinearProbe(objective.num_classes, objective.feature_dim)

    def centroid_classifier(self) -> CentroidClassifier:
        """An unfitted CC, with the objective's own centre, temperature and distribution where it has them."""
        if isinstance(self.objective, NCMILoss):
            return self.objective.centroid_classifier()
        return CentroidClassifier(self.objective.num_classes, self.objective.feature_dim)

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """What training moves: all but the linear probe, and what follows the weights without gradient."""
        for parameter in (*self.backbone.parameters(), *self.objective.parameters()):
            if parameter.requires_grad:
                yield parameter

    @torch.no_grad()
    def log_proba(self, features: Tensor, readout: str) -> Tensor:
        """Log-probabilities ``[B, C]`` of a read-out: ``"head"``, ``"cc"`` or ``"lp"``.

        Raises:
            ValueError: for another read-out.
        """
        if readout == "head":
            return torch.log_softmax(self.objective.scores(features), dim=-1)
        if readout == "cc":
            return self.cc.predict_log_proba(features)
        if readout == "lp":
            return self.lp.predict_log_proba(features)
        raise ValueError(f"unknown read-out {readout!r}: use 'head', 'cc' or 'lp'")


class Model(Classifier):
    """Standardiser, backbone and objective, made from a recipe; later also the fitted read-outs CC and LP.

    Args:
        recipe: backbone and objective.
        signature: of the data.
    """

    def __init__(self, recipe: Recipe, signature: Signature) -> None:
        backbone = make_backbone(recipe.backbone, signature.sample_shape)
        super().__init__(backbone, recipe.objective.build(len(signature.class_names), recipe.backbone.feature_dim))
        self.signature = signature
        self.standardise = Standardiser(signature.sample_shape[0], signature.kind)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of raw inputs, ``[B, *sample_shape] → [B, D]``."""
        features: Tensor = self.backbone(self.standardise(inputs))
        return features

    def save(self, path: Path) -> None:
        """Write all weights and the signature into one safetensors file."""
        signature: dict[str, Any] = {
            "kind": self.signature.kind,
            "sample_shape": list(self.signature.sample_shape),
            "class_names": list(self.signature.class_names),
            "feature_names": None if self.signature.feature_names is None else list(self.signature.feature_names),
        }
        save_checkpoint(path, {"signature": signature, "model": self.state_dict()})


def load_model(run: str | Path) -> Model:
    """The trained model of a finished run, on the CPU, in evaluation mode.

    Raises:
        RunFolderError: if the path holds no run.
        CheckpointError: if the run is not finished or its model file is damaged.
    """
    folder = RunFolder.open(run)
    if not folder.finished:
        raise CheckpointError(f"{folder.path}: this run is not finished: go on with it by `ncmi resume`")
    recipe = folder.recipe()
    state = load_checkpoint(folder.model)
    try:
        signature = Signature(
            state["signature"]["kind"],
            tuple(state["signature"]["sample_shape"]),
            tuple(state["signature"]["class_names"]),
            None if state["signature"]["feature_names"] is None else tuple(state["signature"]["feature_names"]),
        )
        model = Model(recipe, signature)
        if recipe.training.precision == "64-true":
            model.double()
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder.model}: does not fit recipe.json ({reason}): restore both files") from None
    return model.eval()
