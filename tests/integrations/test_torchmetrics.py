"""NCMIMetric against ``measure`` and plain sums: batches, collections, processes, state."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import ncmi
from ncmi.loss import equation

torchmetrics = pytest.importorskip("torchmetrics")

from ncmi.integrations.torchmetrics import NCMIMetric  # noqa: E402

C = 4


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            2 * torch.randn(n, C, generator=generator, dtype=torch.float64),
            torch.randint(C, (n,), generator=generator),
        )
        for n in (7, 1, 30, 12)
    ]


LOGITS, LABELS = (torch.cat(x) for x in zip(*batches(), strict=True))


def fed(metric: Any, parts: list[tuple[Tensor, Tensor]] | None = None) -> Any:
    for logits, labels in batches() if parts is None else parts:
        metric.update(logits, labels)
    return metric


@pytest.mark.parametrize("separation", ["centroid_kl", "cross_entropy"])
@pytest.mark.parametrize("value", ["ncmi", "cmi", "separation"])
def test_equals_measure_and_the_plain_sums(value: Any, separation: Any) -> None:
    found = fed(NCMIMetric(C, value=value, separation=separation)).compute()
    p = LOGITS.softmax(1)
    expected = getattr(ncmi.measure(p.log(), LABELS, C, separation), value)
    assert found.dtype == torch.float64
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-12)
    plain = equation.cmi(p, LABELS) if value == "cmi" else equation.gamma(p, LABELS, separation)
    plain = equation.ncmi(p, LABELS, separation) if value == "ncmi" else plain
    assert float(found) == pytest.approx(float(plain), rel=1e-9)


def test_inputs_of_every_kind() -> None:
    log_p = LOGITS.log_softmax(1)
    expected = ncmi.measure(log_p, LABELS, C).ncmi
    taken = fed(NCMIMetric(C, inputs="log_probabilities"), [(log_p, LABELS)])
    assert float(taken.compute()) == pytest.approx(expected, rel=1e-12)
    for length in ("own", "common", 1.3):
        criterion = ncmi.NCMILoss(C, 6, temperature=0.3, distribution="softmax", feature_length=length)  # type: ignore[arg-type]
        features = torch.randn(40, 6, dtype=torch.float64)
        labels = torch.arange(40) % C
        expected = ncmi.measure(criterion.log_distribution(features), labels, C).ncmi
        metric = NCMIMetric(C, inputs="features", dim=6, temperature=0.3, distribution="softmax", feature_length=length)
        metric.update(features.reshape(2, 20, 6).movedim(-1, 1), labels.reshape(2, 20).int())
        assert float(metric.compute()) == pytest.approx(expected, rel=1e-12)
    head = ncmi.NCMIHead(6, C)
    scores = head(features.float()).detach()
    metric = fed(NCMIMetric(C), [(scores, labels)])
    assert float(metric.compute()) == pytest.approx(ncmi.measure(scores, labels, C).ncmi, rel=1e-5)
    half = fed(NCMIMetric(C), [(LOGITS.half(), LABELS)])
    assert float(half.compute()) == pytest.approx(
        ncmi.measure(LOGITS.half().float().log_softmax(1), LABELS, C).ncmi, rel=1e-12
    )


def test_a_collection_shares_the_sums_and_forward_gives_the_batch() -> None:
    metrics = torchmetrics.MetricCollection(
        {
            "ncmi": NCMIMetric(C),
            "cmi": NCMIMetric(C, value="cmi"),
            "accuracy": torchmetrics.classification.MulticlassAccuracy(C, average="micro"),
        },
        prefix="val/",
    )
    for logits, labels in batches()[2:]:
        of_batch = metrics(logits, labels)
        expected = ncmi.measure(logits.log_softmax(1), labels, C)
        assert float(of_batch["val/ncmi"]) == pytest.approx(expected.ncmi, rel=1e-12)
        assert float(of_batch["val/cmi"]) == pytest.approx(expected.cmi, rel=1e-12)
    fed(metrics, batches()[:2])
    whole, found = ncmi.measure(LOGITS.log_softmax(1), LABELS, C), metrics.compute()
    assert float(found["val/ncmi"]) == pytest.approx(whole.ncmi, rel=1e-12)
    assert float(found["val/cmi"]) == pytest.approx(whole.cmi, rel=1e-12)
    assert float(found["val/accuracy"]) == pytest.approx(float((LOGITS.argmax(1) == LABELS).double().mean()))
    assert sorted(map(len, metrics.compute_groups.values())) == [1, 2]
    metrics.reset()
    fed(metrics, batches()[2:3])
    logits, labels = batches()[2]
    assert float(metrics.compute()["val/ncmi"]) == pytest.approx(
        ncmi.measure(logits.log_softmax(1), labels, C).ncmi, rel=1e-12
    )


def test_state_moves_with_a_module_and_is_kept_where_asked_for() -> None:
    module = nn.Module()
    module.metric = fed(NCMIMetric(C))
    assert not module.state_dict()  # as every metric's
    module.metric.persistent(True)
    other = NCMIMetric(C)
    other.persistent(True)
    other.load_state_dict({name.removeprefix("metric."): x for name, x in module.state_dict().items()})
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert other.compute() == module.metric.compute()
    module.half()  # the sums stay in float64
    assert module.metric.counts.dtype == torch.float64
    assert copy.deepcopy(module).metric.compute() == module.metric.compute()
    assert module.to("meta").metric.sums.device.type == "meta"


def test_ignored_labels_and_errors() -> None:
    metric = NCMIMetric(C, ignore_index=9)
    kept = LABELS < 2
    metric.update(LOGITS, LABELS.masked_fill(~kept, 9).to(torch.int16))
    expected = ncmi.measure(LOGITS[kept].log_softmax(1), LABELS[kept], C).ncmi
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(TypeError, match="labels are a list"):
        metric.update(LOGITS, LABELS.tolist())
    with pytest.raises(TypeError, match="preds are a ndarray"):
        metric.update(LOGITS.numpy(), LABELS)
    with pytest.raises(ValueError, match=r"expected \[B, 4\]"):
        metric.update(LOGITS[:, :3], LABELS)
    for wrong in ({"value": "mi"}, {"inputs": "images"}, {"separation": "kl"}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NCMIMetric(C, **wrong)  # type: ignore[arg-type]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    metrics = fed(torchmetrics.MetricCollection({"ncmi": NCMIMetric(C)}), batches()[rank::2])
    found = [metrics.compute()["ncmi"], metrics.compute()["ncmi"], fed(metrics, [])["ncmi"].counts.sum()]
    torch.save(torch.stack(found), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    # forked from one that has imported what each would take longer for than for its work
    start = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload(["torchmetrics", "pytest"])
    torch.multiprocessing.start_processes(process, (str(tmp_path),), 2, start_method=start)  # type: ignore[no-untyped-call]
    expected = ncmi.measure(LOGITS.log_softmax(1), LABELS, C).ncmi
    for rank, samples in ((0, 37), (1, 13)):
        found = torch.load(tmp_path / f"{rank}.pt").tolist()
        assert found == [pytest.approx(expected, rel=1e-12)] * 2 + [samples]


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "ncmi.integrations.torchmetrics")
    with pytest.raises(
        ModuleNotFoundError, match=re.escape("NCMIMetric needs torchmetrics: pip install ncmi[metrics]")
    ):
        importlib.import_module("ncmi.integrations.torchmetrics")
