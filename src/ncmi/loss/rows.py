"""An optimizer for tables with a row for each of very many classes: it keeps one number a row.

Adam keeps two numbers for each one of the table, which with a million classes is more than all the rest. A row's
components are alike, but rows differ in how often their class comes by: so one scale a row is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ncmi.loss.forms import check_range


class RowAdagrad(Optimizer):
    """Adagrad with one sum for each row, the mean square of its gradients: C numbers of state for a table ``[C, D]``.

    ``G_c ← G_c + mean_i g_ci²``, ``w_c ← w_c − rate·g_c/(√G_c + eps)``. A row without gradient stays as it is, so that
    a sparse gradient, as of ``sparse_gradient=True``, and a dense one with the same numbers are the same step. A class
    that comes by rarely takes large steps, whatever the number of classes. There is neither momentum nor weight decay,
    which directions need not.

    Args:
        params: tables ``[C, D]``, such as ``loss.centroid_parameters()``, spread over processes or not.
        lr: rate; the first step of a row is as long as ``rate·√D``.
        eps: added to the root.

    Raises:
        ValueError: for a rate or eps out of range, or a parameter that has no rows.

    Source: the row-wise Adagrad of recommendation models (Naumov et al. 2019, DLRM, arXiv 1906.00091).

    Example:
        >>> table = torch.nn.Parameter(torch.zeros(3, 4))
        >>> table.grad = torch.tensor([[2.0] * 4, [0.0] * 4, [-5.0] * 4])
        >>> RowAdagrad([table], lr=0.1).step()
        >>> table[:, 0]
        tensor([-0.1000,  0.0000,  0.1000], grad_fn=<SelectBackward0>)
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, eps: float = 1e-10) -> None:
        check_range(SimpleNamespace(lr=lr, eps=eps), "lr", "eps", least=0, below=math.inf)
        super().__init__(params, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                if table.dim() != 2:
                    raise ValueError(f"a parameter of shape {list(table.shape)} has no rows: give it to torch.optim")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step of all tables that have a gradient."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step(table, table.grad, group["lr"], group["eps"])
        return value

    def _step(self, table: Tensor, gradient: Tensor, rate: float, eps: float) -> None:
        state = self.state[table]
        if not state:
            # of a table that is spread over processes each has the sums of its rows
            state["sum"] = torch.zeros_like(table.detach().sum(1, keepdim=True))
        total: Tensor = state["sum"]
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            total.index_add_(0, rows, values.square().mean(1, keepdim=True))
            table.index_add_(0, rows, values / (total[rows].sqrt() + eps), alpha=-rate)
            return
        total += gradient.square().mean(1, keepdim=True)
        table.addcdiv_(gradient, total.sqrt() + eps, value=-rate)
