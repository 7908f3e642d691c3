"""CMI, Γ and NCMI of a classifier's outputs: exact, in one pass, from sums that add up over batches and processes.

With ``n_c`` the class counts, ``A_c = Σ P``, ``L_c = Σ log P`` (C×D) and ``e_c = Σ Σ_i P log P`` over class c,
``S_c = A_c/n_c`` and ``h_c = Σ_i S_ci log S_ci``:

    CMI_c                = e_c/n_c − h_c
    N·C·Γ (centroid KL)  = Σ_c [ n_c (Σh − h_c) − (ΣS − S_c)·L_c ]
    N²·Γ (cross entropy) = −(Σ_c A_c)·(Σ_c L_c) + Σ_c A_c·L_c
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ncmi.loss.checks import IGNORE, SUM_TOLERANCE, as_rows, check_tensor
from ncmi.loss.distributed import all_reduce_sum, world_size
from ncmi.loss.forms import Separation, check_choice, check_whole

_CHUNK = 2**19  # elements taken to float64 at a time: 4 MB, independent of the number of samples
_SUMS = ("counts", "sums", "log_sums", "negative_entropies")


class Information(NamedTuple):
    """What :func:`measure` returns.

    Attributes:
        cmi: concentration, the mean within-class ``KL(P‖S_y)``, nats, ≥ 0.
        separation: Γ, nats.
        ncmi: CMI/Γ.
        per_class_cmi: ``[C]`` float64, nats; NaN for a class without samples.
    """

    cmi: float
    separation: float
    ncmi: float
    per_class_cmi: Tensor

    @property
    def gamma(self) -> float:
        """Γ, the separation."""
        return self.separation

    def as_dict(self) -> dict[str, float | list[float]]:
        """The four as plain numbers, as for JSON or a logger.

        Example:
            >>> Information(0.5, 2.0, 0.25, torch.tensor([0.5, 0.5])).as_dict()
            {'cmi': 0.5, 'separation': 2.0, 'ncmi': 0.25, 'per_class_cmi': [0.5, 0.5]}
        """
        return {
            "cmi": self.cmi,
            "separation": self.separation,
            "ncmi": self.ncmi,
            "per_class_cmi": self.per_class_cmi.tolist(),
        }

    def __str__(self) -> str:
        return f"CMI {self.cmi:.6g} nats, Γ {self.separation:.6g} nats, NCMI {self.ncmi:.6g}"

    def __repr__(self) -> str:
        return f"<{self}, {len(self.per_class_cmi)} classes>"


class InformationAccumulator:
    """Sufficient statistics of CMI, Γ and NCMI over batches.

    Args:
        num_classes: C ≥ 1.
        dim: D, the width of the distributions.
        device: where the sums live; by default, the device of the first batch.
        ignore_index: label of samples that do not count.

    Attributes:
        counts, sums, log_sums, negative_entropies: ``n_c``, ``A_c``, ``L_c`` and ``e_c`` of all samples seen by this
            process, float64, ``[C]`` or ``[C, D]``; they add up.

    Example:
        >>> accumulator = InformationAccumulator(num_classes=2, dim=3)
        >>> log_p = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]]).log()
        >>> round(accumulator.update(log_p, torch.tensor([0, 0, 1])).compute().cmi, 4)
        0.0161
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        device: torch.device | str | None = None,
        ignore_index: int = IGNORE,
    ) -> None:
        check_whole(num_classes=num_classes, dim=dim)
        if num_classes < 1 or dim < 1:
            raise ValueError(f"num_classes={num_classes}, dim={dim}: both must be at least 1")
        self.num_classes, self.dim, self.ignore_index = num_classes, dim, ignore_index
        self.counts = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.sums = self.counts.new_zeros(num_classes, dim)
        self.log_sums, self.negative_entropies = torch.zeros_like(self.sums), torch.zeros_like(self.counts)
        self._device_is_open = device is None

    def _state(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.counts, self.sums, self.log_sums, self.negative_entropies

    def state_dict(self) -> dict[str, Tensor]:
        """The sums by name, copied: whoever adds them up over accumulators has the sums of all their samples."""
        return {name: value.clone() for name, value in zip(_SUMS, self._state(), strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums that :meth:`state_dict` gave, of as many classes and as wide; they stay on this device.

        Raises:
            ValueError: for other names or shapes.
        """
        shapes = {name: list(value.shape) for name, value in state.items()}
        expected = {name: list(getattr(self, name).shape) for name in _SUMS}
        if shapes != expected:
            raise ValueError(f"state {shapes} is not that of {self.num_classes} classes × {self.dim}: {expected}")
        for name in _SUMS:
            getattr(self, name).copy_(state[name])

    def reset(self) -> InformationAccumulator:
        """Forget all samples; returns this one."""
        for value in self._state():
            value.zero_()
        return self

    def to(self, device: torch.device | str) -> InformationAccumulator:
        """Move the sums to a device, where they stay; returns this one."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name).to(device))
        self._device_is_open = False
        return self

    @torch.no_grad()
    def update(self, log_p: Tensor, labels: Tensor) -> InformationAccumulator:
        """Add a batch; returns this one.

        Args:
            log_p: log-distributions ``[B, D]`` or ``[B, D, d1, …]`` of any floating dtype.
            labels: ``[B]`` or ``[B, d1, …]``, of any integer dtype; those of ``ignore_index`` do not count.

        Raises:
            TypeError: for what is no tensor.
            ValueError: for shapes that do not fit, labels out of range, rows that are not log-distributions, NaN, or a
                probability of exactly zero (Γ would be infinite).
        """
        check_tensor(log_p, "log_p")
        check_tensor(labels, "labels")
        if log_p.numel() == labels.numel() == 0:
            return self
        batch = as_rows(log_p, labels, self.num_classes, width=self.dim, ignore_index=self.ignore_index, what="log_p")
        rows, targets = batch.rows, batch.labels
        if targets.is_floating_point():
            raise ValueError("CMI and Γ are of samples with one class each: pass integer labels, not soft targets")
        if batch.ignored is not None:
            rows, targets = rows[~batch.ignored], targets[~batch.ignored]
        if self._device_is_open:
            self.to(log_p.device)
        step = max(1, _CHUNK // self.dim)
        for part, of_part in zip(rows.split(step), targets.split(step), strict=True):
            if len(part):
                self._add(part.double(), of_part)
        return self

    def _add(self, log_p: Tensor, labels: Tensor) -> None:
        p = log_p.exp()
        _check_rows(log_p, p)
        self.counts += torch.bincount(labels, minlength=self.num_classes)
        self.sums.index_add_(0, labels, p)
        self.log_sums.index_add_(0, labels, log_p)
        self.negative_entropies.index_add_(0, labels, torch.linalg.vecdot(p, log_p))

    def merge(self, other: InformationAccumulator) -> InformationAccumulator:
        """Add another accumulator's samples to this one's, and return this one.

        Raises:
            ValueError: for another number of classes or another width.
        """
        if (other.num_classes, other.dim) != (self.num_classes, self.dim):
            raise ValueError(
                f"cannot merge {other.num_classes}×{other.dim} statistics into {self.num_classes}×{self.dim} ones"
            )
        for mine, theirs in zip(self._state(), other._state(), strict=True):
            mine += theirs.to(mine.device)
        return self

    def compute(self, separation: Separation = "centroid_kl", *, synchronize: bool = True) -> Information:
        """CMI, Γ, NCMI and per-class CMI of all samples seen, in all processes.

        Classes without samples are left out, as if they did not exist: they have no centroid to be separate from.

        Args:
            separation: ``"centroid_kl"`` (arXiv 2601.02543) or ``"cross_entropy"`` (CMIC-DL, arXiv 2309.09123).
            synchronize: add up over processes; every process must then call this.

        Raises:
            ValueError: before the first sample, or for an unknown separation.
        """
        check_choice("separation", separation, Separation)
        state: tuple[Tensor, ...] = self._state()
        if synchronize and world_size() > 1:
            state = tuple(self.state_dict().values())  # copies: the accumulator keeps its own process's sums
            all_reduce_sum(*state)
        present = state[0] > 0
        counts, sums, log_sums, negative_entropies = state if bool(present.all()) else (x[present] for x in state)
        if len(counts) == 0:
            raise ValueError("no samples yet: call update(log_p, labels) first")
        total = counts.sum()
        centroids = sums / counts.unsqueeze(-1)
        h = torch.xlogy(centroids, centroids).sum(-1)
        # rounding may leave −1e-17 where all of a class's distributions are equal
        concentration = (negative_entropies / counts - h).clamp_min(0)
        cmi = torch.dot(counts, concentration) / total
        if separation == "centroid_kl":
            others = centroids.sum(0) - centroids
            gamma = (torch.dot(counts, h.sum() - h) - torch.dot(others.flatten(), log_sums.flatten())) / (
                total * len(counts)
            )
        else:
            gamma = (torch.dot(sums.flatten(), log_sums.flatten()) - torch.dot(sums.sum(0), log_sums.sum(0))) / total**2
        per_class = torch.full((self.num_classes,), torch.nan, dtype=torch.float64, device=state[0].device)
        per_class[present] = concentration
        ncmi = float(cmi / gamma) if len(counts) > 1 else float("nan")
        return Information(float(cmi), float(gamma), ncmi, per_class)


def measure(
    log_p: Tensor,
    labels: Tensor,
    num_classes: int,
    separation: Separation = "centroid_kl",
    *,
    ignore_index: int = IGNORE,
) -> Information:
    """CMI, Γ, NCMI and per-class CMI of ``log_p [N, D]`` with ``labels [N]``; see :class:`InformationAccumulator`.

    Maps ``[N, D, d1, …]`` with labels ``[N, d1, …]`` are taken as well, and labels of ``ignore_index`` do not count.
    Cost O(N·D), extra memory O(C·D), float64 sums. With one class only, Γ is 0 and NCMI is NaN.
    """
    check_tensor(log_p, "log_p")
    width = log_p.shape[1] if log_p.dim() > 1 else log_p.numel()
    accumulator = InformationAccumulator(num_classes, width, device=log_p.device, ignore_index=ignore_index)
    return accumulator.update(log_p, labels).compute(separation)


def _check_rows(log_p: Tensor, p: Tensor) -> None:
    if not bool(((p.sum(-1) - 1).abs() <= SUM_TOLERANCE).all()):  # NaN fails too
        if bool(log_p.isnan().any()):
            raise ValueError("log_p holds NaN: check the logits or features that it comes from")
        raise ValueError("rows of log_p are not log-distributions: apply log_softmax or to_log_distribution")
    if bool(log_p.amin() == -torch.inf):
        raise ValueError("a probability is exactly 0, so Γ is infinite: pass logits through log_softmax in float32")
