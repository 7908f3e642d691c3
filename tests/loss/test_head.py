"""NCMIHead in the place of a linear layer: layouts, ties to embeddings, and what moves without labels."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ncmi

LABELS = torch.tensor([0, 1, 2, 3, 3])


def steps(head: ncmi.NCMIHead, parts: list[Tensor], micro: int) -> None:
    """Gradient descent on the cross-entropy of scores, one step for ``micro`` parts."""
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for i, part in enumerate(parts):
        F.cross_entropy(head(part), LABELS).backward()
        if i % micro == micro - 1:
            optimizer.step()
            optimizer.zero_grad()


def test_maps_as_of_a_convolution() -> None:
    """``dim=1``: values, gradients, loss and predictions are those of the map's pixels as rows."""
    torch.manual_seed(0)
    rows, maps = ncmi.NCMIHead(6, 4), ncmi.NCMIHead(6, 4, dim=1)
    maps.load_state_dict(rows.state_dict())
    features = torch.randn(2, 6, 3, 5, requires_grad=True)
    labels = torch.randint(4, (2, 3, 5))
    labels[0, 1] = -100
    scores = maps(features)
    assert scores.shape == (2, 4, 3, 5)
    torch.testing.assert_close(scores.movedim(1, -1), rows(features.movedim(1, -1)))
    assert torch.equal(maps.predict(features), scores.argmax(1))
    torch.testing.assert_close(maps.predict_proba(features).sum(1), torch.ones(2, 3, 5))
    by_scores, by_head = F.cross_entropy(scores, labels), maps(features, labels)
    torch.testing.assert_close(by_head, by_scores)
    torch.testing.assert_close(rows(features.movedim(1, -1), labels), by_scores)
    for one, other in zip(
        *(torch.autograd.grad(x, (features, maps.centroid_logits)) for x in (by_scores, by_head)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert maps(torch.randn(7, 6)).shape == (7, 4)
    assert maps.predict(torch.randn(6)).shape == ()
    torch.testing.assert_close(maps.loss_module()(features, labels), by_scores)
    torch.testing.assert_close(rows.loss_module()(features, labels), by_scores)
    with pytest.raises(ValueError, match="second, 1"):
        ncmi.NCMIHead(6, 4, dim=2)


def test_sequences() -> None:
    head = ncmi.NCMIHead(6, 4)
    features, labels = torch.randn(2, 5, 6), torch.randint(4, (2, 5))
    assert head(features).shape == (2, 5, 4)
    torch.testing.assert_close(head(features, labels), F.cross_entropy(head(features).flatten(0, 1), labels.flatten()))
    assert torch.equal(head.predict(features), head(features).argmax(-1))


@pytest.mark.parametrize("way", ["embedding takes the head's", "head takes the embedding's"])
def test_tied_to_an_embedding(way: str) -> None:
    embedding, head = nn.Embedding(9, 6), ncmi.NCMIHead(6, 9)
    if way == "embedding takes the head's":
        embedding.weight = head.weight
    else:
        head.weight = embedding.weight
    model = nn.Sequential(embedding, head)
    assert len(list(model.parameters())) == 1
    assert head.centroid_logits is embedding.weight
    assert head.bias is None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(torch.arange(9)), torch.arange(9).roll(1)).backward()
    optimizer.step()
    assert torch.equal(head.centroid_logits, embedding.weight)
    assert set(model.state_dict()) == {"0.weight", "1.centroid_logits", "1._extra_state"}


@pytest.mark.parametrize("micro", [1, 3])
def test_center_follows_features_without_labels(micro: int) -> None:
    """As with labels: once per optimizer step, from all micro-batches of the step before."""
    torch.manual_seed(0)
    parts = [torch.randn(5, 6) + i for i in range(7)]
    head = ncmi.NCMIHead(6, 4, center="ema", center_decay=0.9)
    steps(head, parts, micro)
    means = torch.stack(parts[: 6 // micro * micro]).reshape(-1, micro * 5, 6).mean(1)
    expected = means[0]
    for mean in means[1:]:
        expected = 0.9 * expected + 0.1 * mean
    torch.testing.assert_close(head.center, expected)
    assert int(head.running_center.updates) == 6 // micro
    before = copy.deepcopy(head.state_dict())
    with torch.no_grad():
        head(parts[0])
    head.eval()(parts[0])
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_center_of_a_map_is_over_its_pixels() -> None:
    head = ncmi.NCMIHead(6, 4, dim=1, center="ema")
    maps = torch.randn(2, 6, 3, 5)
    head(maps)
    torch.testing.assert_close(head.running_center.sum, maps.sum((0, 2, 3)))
    assert head.running_center.pending == 30


def test_class_means_without_labels_are_said() -> None:
    head = ncmi.NCMIHead(6, 4, centroids="class_mean")
    with pytest.warns(UserWarning, match="class means stay at their anchors without labels"):
        head(torch.randn(5, 6))
    quiet = ncmi.NCMIHead(6, 4, centroids="class_mean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head(torch.randn(5, 6))  # once is enough
        quiet(torch.randn(5, 6), LABELS)
        quiet(torch.randn(5, 6))
        ncmi.NCMIHead(6, 4, centroids="class_mean").eval()(torch.randn(5, 6))


FORMS: list[dict[str, Any]] = [
    {"centroids": "fixed", "anchor_scale": 5.0, "form": form, "separation_power": power}
    for form, power in (("likelihood", None), ("mean_of_ratios", 1.0), ("mean_of_ratios", -2.0))
]


@pytest.mark.parametrize("options", FORMS)
def test_fixed_centroids_are_those_of_the_buffers(options: dict[str, Any]) -> None:
    """Averages of models, replaced buffers and changes in place: what ``state_dict()`` shows is computed with."""
    torch.manual_seed(0)
    features = torch.randn(5, 6)
    head = ncmi.NCMIHead(6, 4, **options)
    other = ncmi.NCMIHead(6, 4, anchor_seed=3, **{**options, "anchors": "random"})

    def results(of: nn.Module) -> tuple[Tensor, Tensor]:
        return of(features), of(features, LABELS)

    def equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two)

    first = results(head)
    buffers = dict(other.named_buffers())
    equal(
        tuple(torch.func.functional_call(head, buffers, arguments) for arguments in ((features,), (features, LABELS))),
        results(other),
    )
    equal(results(head), first)

    averaged = torch.optim.swa_utils.AveragedModel(head, use_buffers=True)
    averaged.update_parameters(head)
    averaged.update_parameters(other)
    equal(results(averaged), results(by_state(options, averaged.module)))
    assert not torch.allclose(averaged(features), first[0])

    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        equal(results(copied), first)
        with torch.no_grad():
            copied.centroid_logits[0] += 1.0
        equal(results(copied), results(by_state(options, copied)))
        copied.centroid_logits.data.mul_(-1.0)  # no version moves
        equal(results(copied), results(by_state(options, copied)))
        copied.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
        equal(results(copied), results(other))
        copied.centroid_logits = head.centroid_logits.clone()
        equal(results(copied), first)
    equal(results(head), first)


def by_state(options: dict[str, Any], module: nn.Module) -> ncmi.NCMIHead:
    fresh = ncmi.NCMIHead(6, 4, **options)
    fresh.load_state_dict(copy.deepcopy(module.state_dict()))
    return fresh


EXPORTED: list[dict[str, Any]] = [
    {},
    {"feature_length": "common"},
    {"centroids": "class_mean", "center": "ema", "form": "ratio_of_means", "separation_power": 1.0},
    {"centroids": "fixed", "center": "frozen", "feature_length": "own", "distribution": "softmax"},
]


@pytest.mark.parametrize("options", EXPORTED)
def test_exports_with_any_batch(options: dict[str, Any], tmp_path: Path) -> None:
    """torch.export, and what onnxruntime makes of torch.onnx.export; the other forms and modes share their operations."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 6), ncmi.NCMIHead(6, 4, **options))
    network[1](network[0](torch.randn(5, 8)), LABELS)
    network[1].update()
    network.eval()
    batch = {0: torch.export.Dim("batch")}
    two, nine = torch.randn(2, 8), torch.randn(9, 8)
    nine[:4] *= 1e3  # so far out, if lengths count, that a sigmoid is 0
    expected = network(nine).detach()
    exported = torch.export.export(network, (two,), dynamic_shapes=(batch,))
    torch.testing.assert_close(exported.module()(nine), expected, rtol=1e-5, atol=1e-5)
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the exporter itself uses
        program = torch.onnx.export(network, (two,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    assert program is not None
    program.save(str(tmp_path / "network.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: nine.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)
