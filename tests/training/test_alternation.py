"""Network and centroids take turns as the recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_helpers import make_recipe

from ncmi.loss.alternating import AlternatingOptimizer, Alternation
from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.training.run import train
from ncmi.training.samples import SampleLoop

STEPS = 4  # of an epoch


def movements(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """For each step who moved: N the network, C the centroids, B both, – nobody."""
    moved = []
    original = AlternatingOptimizer.step

    def record(self: AlternatingOptimizer, *, step: int, epoch: int) -> None:
        every = [parameter for each in self.optimizers for group in each.param_groups for parameter in group["params"]]
        groups = [every[0], every[-1]]
        before = [parameter.detach().clone() for parameter in groups]
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in groups)
        original(self, step=step, epoch=epoch)
        network, centroids = (not torch.equal(now, then) for now, then in zip(groups, before, strict=True))
        moved.append(
            {(True, False): "N", (False, True): "C", (True, True): "B", (False, False): "–"}[network, centroids]
        )

    monkeypatch.setattr(AlternatingOptimizer, "step", record)
    train(make_recipe(schedule="constant", **options), folder)
    return "".join(moved)


@pytest.mark.parametrize(
    ("alternation", "expected"),
    [
        (Alternation(), "BBBB BBBB BBBB"),
        (Alternation("joint", start_epoch=1), "NNNN BBBB BBBB"),
        (Alternation("phases"), "NCNC NCNC NCNC"),
        (Alternation("phases", network_steps=2, centroid_steps=1), "NNCN NCNN CNNC"),
        (Alternation("phases", network_steps=1, centroid_steps=4), "NCCC CNCC CCNC"),
        # the phases are counted from the beginning of the run, also before the start epoch
        (Alternation("phases", network_steps=3, centroid_steps=2, start_epoch=1), "NNNN CNNN CCNN"),
        (Alternation("class_means"), "NNNN NNNN NNNN"),
    ],
)
def test_who_moves_when(
    alternation: Alternation, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = NCMIOptions(anchor_scale=10.0 if alternation.mode == "class_means" else None)
    moved = movements(tmp_path / "run", monkeypatch, objective=options, alternation=alternation)
    assert moved == expected.replace(" ", "")


def test_without_centroids_the_network_always_moves(tmp_path: Path) -> None:
    phases = make_recipe(CrossEntropyOptions(), alternation=Alternation("phases"))
    train(make_recipe(CrossEntropyOptions()), tmp_path / "joint")
    train(phases, tmp_path / "phases")
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("joint", "phases"))
    assert a == b


@pytest.mark.parametrize("ema_decay", [None, 0.5])
@pytest.mark.parametrize(
    ("centroids", "length", "scale"),
    [("fixed", "own", 10.0), ("learned", "own", 10.0), ("learned", "common", None), ("class_mean", "common", 10.0)],
)
@pytest.mark.parametrize("distribution", ["nsf", "softmax"])
def test_class_means_are_the_true_ones(
    centroids: Any,
    length: Any,
    scale: float | None,
    distribution: Any,
    ema_decay: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[float] = []
    extract = SampleLoop.extract

    def naive_error(loop: SampleLoop, model: Any) -> float:
        """Largest relative difference of the centroids from the class means of P, in float64."""
        indices = loop.split.train
        with torch.no_grad():
            features = model.eval()(loop.inputs[indices]).double()
            centered = features if model.objective.center is None else features - model.objective.center.double()
            z = centered / (model.objective.feature_length or centered.norm(dim=1, keepdim=True))
            z = z / model.objective.temperature
            p = torch.sigmoid(z) if distribution == "nsf" else z.exp()
            p = p / p.sum(-1, keepdim=True)
            means = torch.stack([p[loop.labels[indices] == c].mean(0) for c in range(3)])
            found: Tensor = model.objective.log_centroids().double().exp()
            return float(((found - means) / means).abs().max())

    def checked(self: SampleLoop, indices: Tensor, model: Any = None) -> Any:
        if indices is self.split.validation and self.progress.epoch < self.training.epochs:
            errors.append(naive_error(self, self.evaluated))
            was = self.model.training
            errors.append(naive_error(self, self.model))
            self.model.train(was)
        return extract(self, indices, model)

    monkeypatch.setattr(SampleLoop, "extract", checked)
    options = NCMIOptions(
        centroids=centroids,
        feature_length=length,
        anchor_scale=scale,
        distribution=distribution,
        center="ema",
        center_decay=0.5,
    )
    train(make_recipe(options, alternation=Alternation("class_means"), ema_decay=ema_decay), tmp_path / "run")
    assert len(errors) == 6
    assert max(errors) < 1e-5


def test_class_means_for_centroids_that_cannot_go_there_are_refused_at_once(tmp_path: Path) -> None:
    recipe = make_recipe(NCMIOptions(feature_length="own"), alternation=Alternation("class_means"))
    with pytest.raises(ValueError, match="use anchor_scale=10, centroids='fixed', or feature_length='common'"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
