"""torch.compile takes the whole loss as one graph, and compiles it once."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import ncmi

PAPER: dict[str, Any] = {
    "form": "mean_of_ratios",
    "separation_power": 1.0,
    "separation_direction": "centroid_to_sample",
    "feature_length": "own",
}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "robust": {"robustness": "auto", "weight": "balanced", "feature_length": "own"},
    "paper": {**PAPER, "centroids": "fixed", "center": "ema"},
    "paper, learned": {**PAPER, "centroids": "learned", "center": "frozen"},
    "class means": {"centroids": "class_mean", "weight": "balanced"},
    "geometric mean, weighted": {
        "separation_power": 0.0,
        "form": "ratio_of_means",
        "centroids": "fixed",
        "weight": [1.0, 2.0, 3.0, 4.0, 5.0],
    },
}

# Dynamo instantiates every autograd.Function that it traces, and warns of it itself
pytestmark = pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")


@pytest.mark.parametrize(
    ("form", "soft"),
    [
        pytest.param(form, soft, id=f"{form}-{kind}", marks=pytest.mark.long if soft and form != "default" else ())
        for form in FORMS
        for kind, soft in (("hard", False), ("soft", True))
    ],
)
def test_one_graph_once(form: str, soft: bool) -> None:
    """A training step with its updates of state: same losses, gradients and state as without compilation."""
    torch.compiler.reset()
    plain, traced = (ncmi.NCMILoss(5, 8, **FORMS[form]) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(traced, fullgraph=True, backend=counter)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(4):
            features, labels = torch.randn(6, 8), torch.randint(5, (6,))
            targets = torch.rand(6, 5).softmax(1) if soft else labels
            results = []
            for module, loss in ((plain, plain), (traced, compiled)):
                f = features.clone().requires_grad_()
                value = loss(f, targets)
                results.append((value.detach(), *torch.autograd.grad(value, (f, *module.parameters()))))
            plain.update()  # every call of compiled code counts as a step
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    traced.update()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(traced.state_dict()[name], value)


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=() if form in ("default", "paper") else pytest.mark.long) for form in FORMS]
)
def test_a_head_on_batches_of_any_size(form: str) -> None:
    torch.compiler.reset()
    head = ncmi.NCMIHead(8, 5, **FORMS[form]).eval()
    compiled = torch.compile(head, fullgraph=True, dynamic=True, backend="eager")
    for size in (6, 3, 11):
        features, labels = torch.randn(size, 8), torch.randint(5, (size,))
        torch.testing.assert_close(compiled(features), head(features), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled(features, labels), head(features, labels), rtol=1e-4, atol=1e-5)


def test_labels_out_of_range_are_said_in_compiled_code_too() -> None:
    torch.compiler.reset()
    compiled = torch.compile(ncmi.NCMILoss(5, 8), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="labels out of range: there are 5 classes"):
        compiled(torch.randn(3, 8), torch.tensor([0, 5, 1]))
    assert compiled(torch.randn(3, 8), torch.tensor([0, -100, 1])).isfinite()


@pytest.mark.parametrize("power", [1.0, -4.0])
def test_pure_function(power: float) -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")

    def loss(f: torch.Tensor, labels: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        return ncmi.ncmi_loss(ncmi.to_log_distribution(f, None, 0.2), labels, log_q, separation_power=power)

    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    log_q = torch.randn(5, 8).log_softmax(1)
    for _ in range(3):
        arguments = torch.randn(6, 8), torch.randint(5, (6,)), log_q
        torch.testing.assert_close(compiled(*arguments), loss(*arguments))
    assert counter.frame_count == 1


@pytest.mark.long
@pytest.mark.skipif(shutil.which("c++") is None, reason="generating code for the CPU needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning")
def test_generated_code() -> None:
    torch.compiler.reset()
    plain, traced = (ncmi.NCMILoss(5, 8, **FORMS["paper"]) for _ in range(2))
    compiled = torch.compile(traced, fullgraph=True)
    for _ in range(2):
        features, labels = torch.randn(6, 8), torch.randint(5, (6,))
        results = []
        for loss in (plain, compiled):
            f = features.clone().requires_grad_()
            value = loss(f, labels)
            results.append((value.detach(), *torch.autograd.grad(value, f)))
        plain.update()
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
