"""The default form against plain B×C×D formulas: centroids as features are, points by default, or directions."""

from __future__ import annotations

import math

import comparison
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import ncmi
from ncmi.loss import equation
from ncmi.loss.forms import FeatureLength, common_length, likelihood_power
from ncmi.objectives.options import NCMIOptions


def likelihoods(loss: ncmi.NCMILoss, features: Tensor, centroids: Tensor) -> Tensor:
    """π ``[B, C]`` by its definition."""
    p, q = comparison.samples(loss, features), comparison.centroids(loss, centroids)
    return equation.likelihoods(p, q, loss.separation_power)


def expected(loss: ncmi.NCMILoss, features: Tensor, targets: Tensor) -> list[Tensor]:
    """Loss, gradient of the features and gradient of the centroids, float64."""
    f, w = (x.detach().double().requires_grad_() for x in (features, loss.centroid_logits))
    log_pi = likelihoods(loss, f, w).log()
    wanted = targets.double() if targets.is_floating_point() else torch.eye(loss.num_classes).double()[targets]
    value = -(wanted * log_pi).sum() / len(f)
    return [value.detach(), *torch.autograd.grad(value, (f, w))]


def found(loss: ncmi.NCMILoss, features: Tensor, targets: Tensor) -> list[Tensor]:
    f = features.detach().clone().requires_grad_()
    value = loss.loss(f, targets)
    return [value.detach(), *torch.autograd.grad(value, (f, loss.centroid_logits))]


def problem(
    classes: int, dim: int, dtype: torch.dtype, length: FeatureLength, **options: object
) -> tuple[ncmi.NCMILoss, Tensor, Tensor]:
    """A loss whose centroids have left their anchors, features about as long as the common length, labels."""
    torch.manual_seed(100 * classes + dim)
    loss = ncmi.NCMILoss(classes, dim, feature_length=length, **options).to(dtype)  # type: ignore[arg-type]
    size = loss.feature_length or 1.0
    least, most = (0.2, 5.0) if length == "own" else (0.5, 1.5)
    with torch.no_grad():
        loss.centroid_logits += 0.3 * size * torch.randn(classes, dim) / math.sqrt(dim)
        loss.centroid_logits *= least + (most - least) * torch.rand(classes, 1)
    return loss, size * torch.randn(24, dim, dtype=dtype) / math.sqrt(dim), torch.randint(classes, (24,))


@pytest.mark.parametrize("kind", comparison.KINDS)
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (4, 3), (9, 16), (30, 12), (100, 128)])
def test_value_and_gradients(classes: int, dim: int, temperature: float, length: FeatureLength, kind: str) -> None:
    options = {"temperature": temperature, "distribution": kind}
    loss, features, labels = problem(classes, dim, torch.float64, length, **options)
    for targets in (labels, torch.rand(24, classes, dtype=torch.float64).softmax(1)):
        pairs = zip(found(loss, features, targets), expected(loss, features, targets), strict=True)
        for name, (one, other) in zip(("loss", "features", "centroids"), pairs, strict=True):
            # in few dimensions the plain sum itself loses digits, where a sample happens to lie close to a centroid
            assert comparison.relative_error(one, other) <= (1e-10 if dim > 3 else 1e-8), name
    pi = likelihoods(loss, features, loss.centroid_logits.detach())
    torch.testing.assert_close(loss.predict_proba(features).detach(), pi)


@pytest.mark.parametrize("converged", [False, True])
@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize(("classes", "dim"), [(2, 16), (10, 64), (100, 512), (100, 64)])
def test_float32_against_float64(classes: int, dim: int, length: FeatureLength, converged: bool) -> None:
    """Also where samples have come close to their own centroid, and most π_y are above 0.9."""
    loss, features, labels = problem(classes, dim, torch.float32, length)
    if converged:
        centroids = loss.centroid_logits.detach()
        if length == "own":
            centroids = torch.nn.functional.normalize(centroids, dim=1)
        features = centroids[labels] + (1.0 if length == "own" else 0.4) * features
        pi = loss.predict_proba(features).detach()[torch.arange(24), labels]
        assert 0.5 < pi.min() < 0.99
    for name, one, other in zip(
        ("loss", "features", "centroids"),
        found(loss, features, labels),
        expected(loss, features, labels),
        strict=True,
    ):
        assert comparison.relative_error(one, other) <= 2e-5, name


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("robustness", [0.0, 0.5, 1.0])
def test_gradcheck(robustness: float, length: FeatureLength) -> None:
    """Through features and centroids, by the module itself."""
    loss = ncmi.NCMILoss(4, 5, robustness=robustness, feature_length=length).double()
    labels, weights = torch.tensor([0, 3, 1]), torch.rand(3, 4, dtype=torch.float64).softmax(1)

    def value(features: Tensor, centroids: Tensor, targets: Tensor) -> Tensor:
        parameters = {"centroid_logits": centroids}
        result = torch.func.functional_call(loss.eval(), parameters, (features, targets))
        assert isinstance(result, Tensor)
        return result

    f = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for targets in (labels, weights):
        assert gradcheck(lambda a, b, targets=targets: value(a, b, targets), (f, w))


@pytest.mark.parametrize(("classes", "power"), [(2, 2.0), (7, 2.0), (8, math.log(8)), (1000, math.log(1000))])
def test_constants_of_the_default(classes: int, power: float) -> None:
    """The one place where tests know them: γ grows with the logarithm of the number of classes, s with the width's root."""
    assert likelihood_power(classes) == pytest.approx(power, rel=1e-12)
    assert likelihood_power(classes, own_length=True) == pytest.approx(2 * power, rel=1e-12)
    assert common_length("common", 400) == pytest.approx(6.0, rel=1e-12)
    # a module knows no network: there "auto" is the paper's
    assert ncmi.NCMIHead(400, classes).feature_length is None


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("classes", [2, 8, 100])
def test_power_and_length_of_a_loss(classes: int, length: FeatureLength) -> None:
    power = likelihood_power(classes, own_length=length == "own")
    for loss in (
        ncmi.NCMILoss(classes, 128, feature_length=length),
        NCMIOptions(feature_length=length).build(classes, 128),
    ):
        assert (loss.separation_power, loss.likelihood_power) == (-power, power)
        assert loss.feature_length == common_length(length, 128)
    assert ncmi.NCMILoss(classes, 128, separation_power=-2.0, feature_length=length).likelihood_power == 2.0


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_no_knowledge_costs_the_logarithm_of_the_number_of_classes(classes: int) -> None:
    """A feature at the origin is as far from every axis; so is any from centroids that are all the same."""
    loss = ncmi.NCMILoss(classes, 1000)
    assert loss.loss(torch.zeros(3, 1000), torch.tensor([0, 1, classes - 1])).item() == pytest.approx(math.log(classes))
    same = ncmi.NCMILoss(classes, 6).double()
    with torch.no_grad():
        same.centroid_logits.copy_(torch.randn(6).expand(classes, 6))
    value = same.loss(torch.randn(4, 6, dtype=torch.float64), torch.randint(classes, (4,)))
    assert value.item() == pytest.approx(math.log(classes), rel=1e-12)


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize("centroids", ["fixed", "class_mean"])
def test_anchors_that_do_not_learn_start_in_the_same_place(centroids: str, length: FeatureLength) -> None:
    """At features of length s along the axes, or with each its own length of any."""
    for temperature in (0.2, 0.5, 2.0):
        learned, other = (
            ncmi.NCMILoss(3, 6, temperature=temperature, centroids=mode, feature_length=length)  # type: ignore[arg-type]
            for mode in ("learned", centroids)
        )
        torch.testing.assert_close(other.log_centroids(), learned.log_centroids().detach())
        along_axes = torch.eye(3, 6) * (7 if length == "own" else learned.feature_length)
        torch.testing.assert_close(learned.log_centroids().detach(), learned.log_distribution(along_axes))
        assert list(other.parameters()) == []
        assert not other.as_features


def test_readouts_are_the_instances_own() -> None:
    modes = {mode: NCMIOptions(centroids=mode).build(3, 6).readouts for mode in ("learned", "fixed", "class_mean")}  # type: ignore[arg-type]
    assert modes == {"learned": ("head", "cc", "lp"), "fixed": ("cc", "lp"), "class_mean": ("cc", "lp")}
    assert NCMIOptions(anchor_scale=10.0).build(3, 6).readouts == ("head", "cc", "lp")


@pytest.mark.parametrize("length", comparison.LENGTHS)
@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (12, 5), (40, 8), (10, 10)])
def test_it_trains_in_any_width(classes: int, dim: int, length: FeatureLength) -> None:
    """Free features, one a class, and centroids: gradient descent takes the loss from chance to next to nothing."""
    loss = ncmi.NCMILoss(classes, dim, feature_length=length)
    features = torch.randn(classes, dim, requires_grad=True)
    labels = torch.arange(classes)
    optimizer = torch.optim.Adam([features, *loss.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(features, labels)
        value.backward()
        optimizer.step()
    assert value < 0.02 * math.log(classes)
    assert torch.equal(loss.predict_proba(features).argmax(1), labels)


def test_centroids_that_are_directions_cannot_be_put_elsewhere() -> None:
    loss = ncmi.NCMILoss(3, 6, feature_length="own")
    before = loss.centroid_logits.detach().clone()
    with pytest.raises(ValueError, match=r"anchor_scale=10, centroids='fixed', or feature_length='common'"):
        loss.set_centroids(torch.full((3, 6), 1 / 6))
    assert torch.equal(loss.centroid_logits, before)


def test_free_logits() -> None:
    """Logits of length 10 and p = −4."""
    state = {"centroid_logits": 10 * torch.eye(4, 6, dtype=torch.float64) + torch.randn(4, 6, dtype=torch.float64)}
    features, labels = torch.randn(5, 6, dtype=torch.float64), torch.randint(4, (5,))
    loss = ncmi.NCMILoss(4, 6, anchors="axis", anchor_scale=10.0, separation_power=-4.0).double()
    loss.load_state_dict(state, strict=False)
    value = equation.loss(
        comparison.samples(loss, features),
        labels,
        equation.simplex(state["centroid_logits"], "nsf"),
        form="likelihood",
        power=-4.0,
        direction="sample_to_centroid",
    )
    torch.testing.assert_close(loss.loss(features, labels).detach(), value)
