"""A trained slide classifier: bag network and objective, with what is needed to use it on new slides."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ncmi.backbones.bags import make_bag_network
from ncmi.backbones.bags.interface import BagNetwork, BagOutput
from ncmi.recipes import SlideRecipe
from ncmi.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ncmi.training.model import Classifier
from ncmi.training.run_folder import RunFolder


class SlideModel(Classifier):
    """Standardiser of instance features, bag network and objective, made from a recipe.

    Args:
        recipe: network and objective.
        class_names: in the order of the labels.
        instance_dim: D_feat, width of the instances' features.
    """

    mean: Tensor
    scale: Tensor
    backbone: BagNetwork

    def __init__(self, recipe: SlideRecipe, class_names: tuple[str, ...], instance_dim: int) -> None:
        network = make_bag_network(recipe.network, instance_dim)
        super().__init__(network, recipe.objective.build(len(class_names), network.feature_dim))
        self.class_names = class_names
        self.instance_dim = instance_dim
        self.register_buffer("mean", torch.zeros(instance_dim))
        self.register_buffer("scale", torch.ones(instance_dim))

    def standardise(self, features: Tensor) -> Tensor:
        """Instance features ``[..., D_feat]`` in the precision of the weights, and in the units of training."""
        return (features.to(self.mean.dtype) - self.mean) / self.scale

    def forward(self, features: Tensor, mask: Tensor | None = None) -> BagOutput:
        """Bag vector and attention of raw instance features ``[N, D_feat]`` or of a padded batch."""
        output: BagOutput = self.backbone(self.standardise(features), mask)
        return output

    def save(self, path: Path) -> None:
        """Write all weights and what they are for into one safetensors file."""
        signature = {"class_names": list(self.class_names), "instance_dim": self.instance_dim}
        save_checkpoint(path, {"signature": signature, "model": self.state_dict()})


def load_slide_model(run: str | Path) -> SlideModel:
    """The trained model of a finished run on slides, on the CPU, in evaluation mode.

    Raises:
        RunFolderError: if the path holds no run on slides.
        CheckpointError: if the run is not finished or its model file is damaged.
    """
    folder = RunFolder.open(run)
    recipe = folder.slide_recipe()
    if not folder.finished:
        raise CheckpointError(f"{folder.path}: this run is not finished: go on with it by `ncmi slides resume`")
    state = load_checkpoint(folder.model)
    try:
        signature = state["signature"]
        model = SlideModel(recipe, tuple(signature["class_names"]), int(signature["instance_dim"]))
        if recipe.training.precision == "64-true":
            model.double()
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder.model}: does not fit recipe.json ({reason}): restore both files") from None
    return model.eval()
