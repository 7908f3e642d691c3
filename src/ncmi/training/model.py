"""A trained model: standardizer, network and objective, with what is needed to use it on new data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch
from torch import Tensor, nn

from ncmi.data.signature import Signature
from ncmi.data.standardize import Standardizer
from ncmi.networks import make_network
from ncmi.networks.bags import make_bag_network
from ncmi.networks.bags.packing import BagModule
from ncmi.readouts.linear_probe import LinearProbe
from ncmi.recipes import BagNetwork, Network, Recipe
from ncmi.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ncmi.training.defaults import torch_defaults
from ncmi.training.run_folder import RunFolder

_BYTES = 12  # of a weight with its gradient and at least one more number of the optimizer's


def check_size(recipe: Recipe, signature: Signature) -> None:
    """See that a network fits this machine before it is made: that would take minutes, or end the process.

    Raises:
        MemoryError: naming both sizes.
    """
    try:
        with torch.device("meta"):
            network = _network(recipe, signature)
    except NotImplementedError:  # one of the user's own that looks at its weights
        return
    weights = sum(parameter.numel() for parameter in network.parameters())
    there = psutil.virtual_memory().total
    if weights * _BYTES > there:
        name = recipe.network.name
        raise MemoryError(
            f"training {weights:.3g} weights of {name} takes {weights * _BYTES / 1e9:.3g} GB, there are "
            f"{there / 1e9:.3g} GB"
        )


def _network(recipe: Recipe, signature: Signature) -> nn.Module:
    if isinstance(recipe.network, BagNetwork):
        return make_bag_network(recipe.network, signature.sample_shape[0])
    return make_network(recipe.network, tuple(signature.sample_shape))


class Classifier(nn.Module):
    """Standardizer, network and objective, made from a recipe; later also the fitted read-outs CC and LP.

    Args:
        recipe: network and objective, resolved.
        signature: of the data.

    Attributes:
        judged: the read-outs by which it is judged, but for kNN.
    """

    def __init__(self, recipe: Recipe, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        self.network = _network(recipe, signature)
        options = recipe.network
        self.test_flip = isinstance(options, Network) and options.test_flip
        if self.test_flip and len(signature.sample_shape) != 3:
            raise ValueError("test_flip=True: only images have a mirror image: leave it out")
        # that of a network of timm is known to the network alone
        own = isinstance(options, BagNetwork) or not options.feature_dim
        feature_dim: Any = self.network.feature_dim if own else options.feature_dim  # type: ignore[union-attr]
        self.objective = recipe.objective.build(len(signature.class_names), feature_dim)
        self.cc = self.objective.centroid_classifier()
        self.lp = LinearProbe(self.objective.num_classes, self.objective.feature_dim)
        every = ("head", "cc", "lp")
        self.judged: tuple[str, ...] = self.objective.readouts[:1] if recipe.training.readouts == "own" else every
        self.standardize = Standardizer(signature.sample_shape[0], signature.kind)

    @property
    def bag_network(self) -> BagModule:
        """The network of a classifier of bags."""
        assert isinstance(self.network, BagModule)
        return self.network

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self.standardize.mean.dtype

    def forward(self, inputs: Tensor) -> Any:
        """Features ``[B, D]`` of raw inputs ``[B, *sample_shape]``; of one raw bag ``[N, D_feat]`` a ``BagOutput``.

        What is judged and predicted goes through here; a training step has the network itself.
        """
        standard = self.standardize(inputs).to(self.dtype)
        features = self.network(standard)
        return (features + self.network(standard.flip(-1))) / 2 if self.test_flip else features

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """What training moves: all but the linear probe, and what follows the weights without gradient."""
        for parameter in (*self.network.parameters(), *self.objective.parameters()):
            if parameter.requires_grad:
                yield parameter

    @torch.no_grad()
    def log_proba(self, features: Tensor, readout: str) -> Tensor:
        """Log-probabilities ``[B, C]`` of a read-out: ``"head"``, ``"cc"`` or ``"lp"``.

        Raises:
            ValueError: for another read-out, and for a linear probe that the run has not fitted.
        """
        if readout == "head":
            return torch.log_softmax(self.objective.scores(features), dim=-1)
        if readout == "cc":
            return self.cc.predict_log_proba(features)
        if readout == "lp":
            if "lp" not in self.judged:
                raise ValueError("this run has no linear probe (--training.readouts own): choose another --readout")
            return self.lp.predict_log_proba(features)
        raise ValueError(f"unknown read-out {readout!r}: use 'head', 'cc' or 'lp'")

    def save(self, path: Path) -> None:
        """Write all weights and the signature into one safetensors file."""
        save_checkpoint(path, {"signature": msgspec.to_builtins(self.signature), "model": self.state_dict()})


@torch_defaults(draws=True)
def load_model(run: str | Path) -> Classifier:
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
        model = Classifier(recipe, msgspec.convert(state["signature"], Signature))
        if recipe.training.precision == "64-true":
            model.double()
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder.model}: does not fit recipe.json ({reason}): restore both files") from None
    return model.eval()
