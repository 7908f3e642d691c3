"""Running statistics of training: the features' center, the classes' mean distributions, and weights by class.

Center and means gather sums and counts (``observe``) and use them once per optimizer step (``update``); all of it is in
the ``state_dict``, so a run that stops between the two goes on as if it had not. :class:`StepWatch` tells a module that
is only ever called whether a step has been made in between.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ncmi.loss.autograd import full_products
from ncmi.loss.checks import Batch
from ncmi.loss.distributed import all_reduce_sum
from ncmi.loss.forms import check_range, check_weight

_LONGEST_WALK = 10_000  # nodes of a graph that are looked at for a parameter


class StepWatch:
    """Tells whether an optimizer has stepped since it was last asked, whatever framework calls it.

    It watches one parameter that every step changes: the loss's own, or where it has none one behind the features. A
    step shows in the parameter's version, or for fused optimizers, which leave that as it is, by a hook on all
    optimizers. So gradient accumulation, steps that a ``GradScaler`` skips, and loops without an optimizer all count
    right. Where there is no parameter to watch every call counts as a step.
    """

    def __init__(self) -> None:
        self._parameter: weakref.ref[Tensor] | None = None
        self._version = -1
        self._stepped = True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a copy watches a parameter of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        StepWatch.__init__(self)

    def ask(self, own: Tensor, features: Tensor) -> bool:
        """Whether there was a step since the last call; ``own`` is watched if it is trained."""
        if torch.compiler.is_compiling():
            return True
        watched = None if self._parameter is None else self._parameter()
        if own.requires_grad or watched is None or not watched.requires_grad:
            parameter = own if own.requires_grad else _parameter_behind(features)
            if parameter is None:
                return True
            if parameter is not watched:
                self._parameter, watched, self._version, self._stepped = weakref.ref(parameter), parameter, -1, True
                _watches.add(self)
                _install_hook()
        stepped = self._stepped or watched._version != self._version
        self._version, self._stepped = watched._version, False
        return stepped

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """What the hook calls."""
        watched = None if self._parameter is None else self._parameter()
        if any(watched is parameter for group in optimizer.param_groups for parameter in group["params"]):
            # a fused optimizer is called for a step that the scaler skips, and told so
            skipped = getattr(optimizer, "found_inf", None)
            self._stepped |= skipped is None or not bool(skipped)


_watches: weakref.WeakSet[StepWatch] = weakref.WeakSet()
_hook: Any = None


def _install_hook() -> None:
    global _hook
    if _hook is None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            for watch in list(_watches):
                watch.after_step(optimizer)

        _hook = register_optimizer_step_post_hook(after_step)


def _parameter_behind(features: Tensor) -> Tensor | None:
    """A trained parameter that the features come from."""
    nodes, seen = [features.grad_fn], set[Any]()
    while nodes and len(seen) < _LONGEST_WALK:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            return variable
        nodes.extend(following for following, _ in node.next_functions)
    return None


def is_recomputation() -> bool:
    """Whether ``torch.utils.checkpoint`` makes this call, in the backward pass, for one that has counted already.

    Of its reentrant kind the first call is without gradients, so that it is the second which counts; the other kind
    computes once more inside hooks on saved tensors.
    """
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
        return False
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


@torch.library.custom_op("ncmi::snapshot", mutates_args=())
def _snapshot(state: Tensor) -> Tensor:
    return state.clone()


@_snapshot.register_fake
def _(state: Tensor) -> Tensor:
    return torch.empty_like(state)


def as_it_is(state: Tensor) -> Tensor:
    """A statistic as a loss may use it. Compiled code may compute it again in the backward pass, from what has moved.

    It does not look into this copy. What is exported has no backward pass.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting() or not torch.is_grad_enabled():
        return state
    copy: Tensor = _snapshot(state)
    return copy


@torch.no_grad()
def put(tensor: Tensor, value: Tensor | float) -> None:
    """Set what is to be reset; a tensor on the meta device has no values, and gets them where it is made real.

    Hugging Face's ``from_pretrained`` initializes all modules once it has loaded a checkpoint, and marks what has come
    from there: ``torch.nn.init``, in which it puts functions of its own meanwhile, and this leave that alone.
    """
    loaded = getattr(tensor, "_is_hf_initialized", False) and nn.init.zeros_.__module__ != nn.init.__name__
    if tensor.device.type != "meta" and not loaded:
        tensor.copy_(value) if isinstance(value, Tensor) else tensor.fill_(value)


class Statistics(nn.Module):
    """Sums, counts and averages over many batches: a cast to half precision leaves them in their own precision."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Statistics:
        def keep(value: Tensor) -> Tensor:
            moved = fn(value)
            return value.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        return self


class RunningCenter(Statistics):
    """Center μ of the features, ``[D]``: a moving average, or the mean of the first batches, then constant.

    Args:
        dim: D.
        mode: ``"ema"``: starts at the first batch's mean, then keeps ``decay`` of the old value at each update.
            ``"frozen"``: mean of all samples of the first ``center_updates`` updates.
    """

    mean: Tensor
    sum: Tensor
    pending: Tensor
    samples: Tensor
    updates: Tensor

    def __init__(self, dim: int, mode: Literal["ema", "frozen"], *, decay: float, center_updates: int) -> None:
        super().__init__()
        self.mode, self.decay, self.center_updates = mode, decay, center_updates
        check_range(self, "decay", least=0, below=1, cure="e.g. 0.99")
        check_range(self, "center_updates", least=1)
        for name, shape in (("mean", (dim,)), ("sum", (dim,)), ("pending", ()), ("samples", ())):
            self.register_buffer(name, torch.empty(shape))
        self.register_buffer("updates", torch.empty((), dtype=torch.long))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget everything."""
        for buffer in self.buffers():
            put(buffer, 0)

    @torch.no_grad()
    def observe(self, features: Tensor, ignored: Tensor | None = None, synchronize: bool = False) -> None:
        """Add features ``[B, D]`` to the sum, but for the ignored ones, ``[B]`` bool; ``synchronize``: those of all.

        DDP puts the first process's buffers into all others before each call, so sums of one's own would be lost.
        """
        if ignored is not None:
            features = features.masked_fill(ignored.unsqueeze(-1), 0.0)
        total = features.sum(0).to(self.sum)
        counted = torch.full_like(self.pending, features.shape[0]) if ignored is None else (~ignored).sum().to(total)
        if synchronize:
            all_reduce_sum(total, counted)
        self.sum += total
        self.pending += counted

    @torch.no_grad()
    def update(self) -> None:
        """Move the center by what was observed since the last update; no samples, no move."""
        # written without branches on values, so that nothing waits for the device and graphs do not break
        batch_mean = self.sum / self.pending.clamp_min(1)
        if self.mode == "ema":
            share = torch.where(self.updates == 0, torch.ones_like(self.samples), 1 - self.decay)
        else:
            share = self.pending / (self.samples + self.pending).clamp_min(1)
            share = torch.where(self.updates < self.center_updates, share, 0.0)
        share = torch.where(self.pending > 0, share, 0.0)
        self.mean.lerp_(batch_mean, share.to(self.mean))
        self.samples += self.pending
        self.updates += self.pending > 0
        self.sum.zero_()
        self.pending.zero_()


class CentroidMeans(Statistics):
    """Moving average of the classes' mean distributions, ``[C, D]``; a class that a batch lacks stays where it is.

    Args:
        shape: C and D; :meth:`reset` sets the anchors.
        decay: share of the old value kept at each update.
    """

    means: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, shape: tuple[int, int], *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        check_range(self, "decay", least=0, below=1, cure="e.g. 0.99")
        self.register_buffer("means", torch.empty(shape))
        self.register_buffer("sums", torch.empty(shape))
        self.register_buffer("counts", torch.empty(shape[0]))

    def reset(self, anchors: Tensor) -> None:
        """Start from the anchors' distributions, ``[C, D]``."""
        for buffer, value in ((self.means, anchors), (self.sums, 0), (self.counts, 0)):
            put(buffer, value)

    @torch.no_grad()
    def observe(self, p: Tensor, batch: Batch, synchronize: bool = False) -> None:
        """Add distributions ``p [n, D]`` of a batch's rows; with ``synchronize`` those of all processes."""
        if batch.labels.is_floating_point():
            targets = batch.labels.to(self.sums)
            with full_products(p):
                sums = targets.T @ p.to(self.sums)
            counts = targets.sum(0)
        else:
            share = batch.shares(self.counts.dtype)
            sums = torch.zeros_like(self.sums).index_add_(0, batch.labels, share.unsqueeze(-1) * p.to(self.sums))
            counts = torch.zeros_like(self.counts).index_add_(0, batch.labels, share)
        if synchronize:
            all_reduce_sum(sums, counts)
        self.sums += sums
        self.counts += counts

    @torch.no_grad()
    def update(self) -> None:
        """Move the means of the classes observed since the last update."""
        present = (self.counts > 0).unsqueeze(-1)
        batch_means = torch.where(present, self.sums / self.counts.clamp_min(1e-6).unsqueeze(-1), self.means)
        self.means.lerp_(batch_means, 1 - self.decay)
        self.sums.zero_()
        self.counts.zero_()


class ClassWeights(Statistics):
    """Weights of the samples by class: ``weights [C]``, or balanced ones ``N/(C·n_c)``.

    Balanced weights come from counts told by :meth:`set_counts` or, without them, from the labels observed so far.

    Raises:
        ValueError: for another name than ``"balanced"``, or weights that are not C numbers ≥ 0.
    """

    weights: Tensor
    counts: Tensor
    counts_are_known: Tensor

    def __init__(self, num_classes: int, weight: str | Tensor | Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        check_weight(weight)
        self.balanced = isinstance(weight, str)
        if isinstance(weight, str):
            self.register_buffer("counts", torch.empty(num_classes))
            self.register_buffer("counts_are_known", torch.empty((), dtype=torch.bool))
        else:
            # numbers of its own, from which a module made on the meta device can be set up
            device = weight.device if isinstance(weight, Tensor) else torch.device("cpu")
            wrong = f"weight must be {num_classes} numbers ≥ 0, one a class, not all 0"
            try:
                given = torch.as_tensor(weight, dtype=torch.get_default_dtype(), device=device)
            except (TypeError, ValueError) as error:
                raise ValueError(wrong) from error
            self._given = given.detach().clone()
            if given.shape != (num_classes,) or (
                given.device.type != "meta" and not bool((given >= 0).all() & given.any() & given.isfinite().all())
            ):
                raise ValueError(wrong)
            self.register_buffer("weights", given.clone() if isinstance(weight, Tensor) else torch.empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights that were given, or forget the counts."""
        if self.balanced:
            put(self.counts, 0)
            put(self.counts_are_known, 0)
        else:
            put(self.weights, self._given)

    @torch.no_grad()
    def observe(self, batch: Batch, synchronize: bool = False) -> None:
        """Count a batch's labels, with ``synchronize`` those of all processes."""
        if not self.balanced:
            return
        counts = torch.zeros_like(self.counts)
        if batch.labels.is_floating_point():
            counts += batch.labels.sum(0)
        else:
            counts.index_add_(0, batch.labels, batch.shares(counts.dtype))
        if synchronize:
            all_reduce_sum(counts)
        self.counts += torch.where(self.counts_are_known, 0.0, counts)

    @torch.no_grad()
    def set_counts(self, counts: Tensor) -> None:
        """Tell how many training samples each class has, ``[C]``; observed labels do not matter thereafter."""
        if self.balanced:
            if counts.shape != (self.num_classes,):
                raise ValueError(
                    f"class counts {list(counts.shape)}: expected one for each of {self.num_classes} classes"
                )
            self.counts.copy_(counts)
            self.counts_are_known.fill_(True)

    def forward(self) -> Tensor:
        if not self.balanced:
            return self.weights
        return self.counts.sum().clamp_min(1) / (self.num_classes * self.counts.clamp_min(1))
