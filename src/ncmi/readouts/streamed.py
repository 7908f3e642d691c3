"""Scores of decisions that come in batches and are not kept: of a sample a few numbers, of a class a histogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ncmi.loss.distributed import all_reduce_sum, gather_rows
from ncmi.readouts.calibration import apply_temperature, reliability_of
from ncmi.readouts.scores import (
    TOP,
    ClassScores,
    Estimate,
    Reliability,
    Scores,
    calibration_error,
    confusions,
    defined,
    notes_on,
)

_CELLS = 2**22  # of all histograms
_MOST_BINS, _FEWEST_BINS = 8192, 64
_REACH = 32.0
"""Log-odds beyond which scores are one bin."""
_COLUMNS = ("label", "decided", "confidence", "own", "brier", "before", "calibrated", "calibrated_own")


class StreamedScores:
    """What :func:`ncmi.readouts.scores.judge` says, of batches of all processes; AUC by histograms of the log-odds.

    All else is exact. Each sample costs 64 bytes and the histograms 64 MiB at most, however many classes there are.

    Args:
        num_classes: C ≥ 2.
        temperature: τ that probabilities are judged by as well; None for none.

    Example:
        >>> scores = StreamedScores(2)
        >>> p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
        >>> scores.update(p.log(), torch.tensor([0, 0, 1, 1]))
        >>> scores.compute(["no", "yes"]).accuracy.value
        0.75
    """

    def __init__(self, num_classes: int, temperature: float | None = None) -> None:
        self.num_classes, self.temperature = num_classes, temperature
        self.bins = min(_MOST_BINS, max(_FEWEST_BINS, _CELLS // num_classes))
        self._rows: list[Tensor] = []
        self._all = torch.zeros(num_classes * self.bins, dtype=torch.int64)
        self._positive = torch.zeros_like(self._all)

    def update(self, log_p: Tensor, labels: Tensor) -> None:
        """Take in log-probabilities ``[n, C]`` and labels ``[n]`` of this process.

        Raises:
            ValueError: for values that are not finite.
        """
        if len(labels) == 0:
            return
        log_p = log_p.double()
        if bool(torch.isnan(log_p).any()) or bool(torch.isposinf(log_p).any()):
            raise ValueError("probabilities are not all finite: check the model that made them")
        highest, decided = log_p.max(1)
        own = log_p.gather(1, labels.unsqueeze(1))
        p = log_p.exp()
        classes = torch.arange(self.num_classes, device=labels.device)
        before = ((log_p > own) | ((log_p == own) & (classes < labels.unsqueeze(1)))).sum(1)
        brier = p.square().sum(1) - 2 * own.exp().squeeze(1) + 1
        columns = [labels, decided, highest.exp().clamp_max(1), own.squeeze(1), brier, before]
        if self.temperature is not None:
            calibrated = apply_temperature(log_p, self.temperature)
            columns += [calibrated.amax(1).exp().clamp_max(1), calibrated.gather(1, labels.unsqueeze(1)).squeeze(1)]
        self._rows.append(torch.stack([column.double() for column in columns], 1).cpu())
        # log-odds: probabilities near 1 differ as much as those near 0
        odds = (log_p - torch.log1p(-p.clamp_max(1 - 1e-15))).clamp(-_REACH, _REACH)
        places = ((odds + _REACH) * (self.bins / (2 * _REACH))).long().clamp_max(self.bins - 1)
        cells = (places + classes * self.bins).cpu()
        self._all.index_add_(0, cells.flatten(), torch.ones(cells.numel(), dtype=torch.int64))
        of_label = cells.gather(1, labels.cpu().unsqueeze(1)).squeeze(1)
        self._positive.index_add_(0, of_label, torch.ones_like(of_label))

    def gather(self, device: torch.device) -> None:
        """Put together what all processes have seen; each must call it, once."""
        histograms = torch.stack([self._all, self._positive]).to(device)
        all_reduce_sum(histograms)
        self._all, self._positive = histograms.cpu()
        width = len(_COLUMNS) if self.temperature is not None else len(_COLUMNS) - 2
        self._rows = [all_rows(torch.cat([torch.empty(0, width, dtype=torch.float64), *self._rows]), device).cpu()]

    def column(self, name: str) -> Tensor:
        """One number of each sample, ``[n]`` float64."""
        return torch.cat(self._rows)[:, _COLUMNS.index(name)].contiguous()

    def compute(self, class_names: Sequence[str], *, per_class: bool = True) -> Scores:
        """The scores, as of :func:`ncmi.readouts.scores.judge` without groups.

        Raises:
            ValueError: before the first sample.
        """
        if not self._rows or len(self.column("label")) == 0:
            raise ValueError("no sample to judge: none of the part could be read")
        y, decided = (self.column(name).long().numpy() for name in ("label", "decided"))
        classes = self.num_classes
        support, chosen = np.bincount(y, minlength=classes), np.bincount(decided, minlength=classes)
        right = np.bincount(y[decided == y], minlength=classes)
        occurs, named = support > 0, (support > 0) | (chosen > 0)
        recall = right / np.where(occurs, support, 1)
        f1 = 2 * right / np.where(named, support + chosen, 1)
        auc, notes = self._auc(support), notes_on(support, class_names)
        if auc is not None:
            notes.append(f"AUC is by histograms of {self.bins:,} bins a class.")
        top = float((self.column("before") < TOP).double().mean()) if classes >= 10 else None
        return Scores(
            samples=len(y),
            accuracy=Estimate(value=float((y == decided).mean())),
            balanced_accuracy=Estimate(value=float(recall[occurs].mean())),
            macro_f1=Estimate(value=float(f1[named].mean())),
            macro_auc=Estimate(value=auc),
            top5_accuracy=top,
            nll=defined(-float(self.column("own").mean())),
            brier=defined(float(self.column("brier").mean())),
            calibration_error=calibration_error(self.reliability()),
            classes=[
                ClassScores(
                    name=str(name),
                    support=int(support[c]),
                    precision=float(right[c] / chosen[c]) if chosen[c] else None,
                    recall=Estimate(value=float(recall[c]) if occurs[c] else None),
                    f1=float(f1[c]) if named[c] else None,
                )
                for c, name in enumerate(class_names)
                if per_class
            ],
            confusions=confusions(y, decided, support, class_names) if per_class else [],
            notes=notes,
        )

    def reliability(self, *, calibrated: bool = False) -> Reliability:
        """Confidence against accuracy, also of the probabilities by τ."""
        right = self.column("decided") == self.column("label")
        return reliability_of(self.column("calibrated" if calibrated else "confidence"), right)

    def calibrated_nll(self) -> float | None:
        """Mean of ``−log p`` at the label, of the probabilities by τ."""
        return defined(-float(self.column("calibrated_own").mean()))

    def _auc(self, support: np.typing.NDArray[np.int64]) -> float | None:
        occurring = np.flatnonzero(support)
        if len(occurring) < 2:
            return None
        columns = [1] if self.num_classes == 2 else occurring.tolist()
        positive, negative = (
            table.view(self.num_classes, self.bins)[columns].double() for table in (self._positive, self._all)
        )
        negative = negative - positive
        below = negative.cumsum(1) - negative / 2
        return float(((positive * below).sum(1) / (positive.sum(1) * negative.sum(1))).mean())


def all_rows(rows: Tensor, device: torch.device) -> Tensor:
    """Rows ``[n, …]`` of all processes, in order of rank, whatever n is on each; every process must call it."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return rows.to(device)
    rows = rows.to(device)
    counts = torch.zeros(torch.distributed.get_world_size(), dtype=torch.int64, device=device)
    counts[torch.distributed.get_rank()] = len(rows)
    all_reduce_sum(counts)
    return gather_rows(rows, tuple(counts.tolist()))
