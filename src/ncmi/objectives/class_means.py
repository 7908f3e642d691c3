"""Running means of vectors, one for each class, from sums and counts."""

import torch
from torch import Tensor, nn

from ncmi.loss.forms import check_range
from ncmi.objectives.interface import as_distribution, no_autocast


class ClassMeans(nn.Module):
    """Exponentially forgetting class means of vectors, updated once per optimizer step.

    For each class the state is a sum and a count, ``S ← ρ S + s`` and ``n ← ρ n + m`` with the sum ``s`` and
    the count ``m`` of the step; the mean is ``S / n``. It has no bias towards its start: after one step it is
    that step's mean. A class that a step did not show keeps its state. Everything is a buffer, also what was
    observed since the last update.

    Args:
        num_classes: C.
        dim: K, the width of the vectors.
        decay: ρ in [0, 1).

    Raises:
        ValueError: if ``decay`` is outside [0, 1).

    Example:
        >>> running = ClassMeans(2, 1, decay=0.5)
        >>> for value in (1.0, 4.0):
        ...     running.observe(torch.tensor([[value]]), torch.tensor([0]))
        ...     running.update()
        >>> running.means()  # (0.5·1 + 4) / 1.5, and a class that was never seen
        tensor([[3.],
                [0.]])
    """

    sums: Tensor
    counts: Tensor
    step_sums: Tensor
    step_counts: Tensor

    def __init__(self, num_classes: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        check_range(self, "decay", least=0, below=1, cure="e.g. 0.99")
        self.register_buffer("sums", torch.zeros(num_classes, dim))
        self.register_buffer("counts", torch.zeros(num_classes))
        self.register_buffer("step_sums", torch.zeros(num_classes, dim))
        self.register_buffer("step_counts", torch.zeros(num_classes))

    @torch.no_grad()
    def observe(self, vectors: Tensor, labels: Tensor) -> None:
        """Add ``vectors [B, K]`` with labels ``[B]`` or soft ``[B, C]`` to the step's sums and counts."""
        weights = as_distribution(labels, len(self.counts), self.sums.dtype)
        # a matrix product: unlike an indexed addition, the same on every run of a GPU
        with no_autocast(vectors):
            self.step_sums += weights.T @ vectors.to(self.sums.dtype)
        self.step_counts += weights.sum(0)

    @torch.no_grad()
    def update(self) -> None:
        """Bring the means up to date with what was observed since the last update."""
        forget = torch.full_like(self.counts, self.decay)
        keep = torch.where(self.step_counts > 0, forget, torch.ones_like(forget))
        self.sums.mul_(keep[:, None]).add_(self.step_sums)
        self.counts.mul_(keep).add_(self.step_counts)
        self.step_sums.zero_()
        self.step_counts.zero_()

    def seen(self) -> Tensor:
        """Which classes have a mean, ``[C]`` bool."""
        return self.counts > 0

    def means(self) -> Tensor:
        """The class means ``[C, K]``; zeros for a class that was never seen."""
        return self.sums / torch.where(self.seen(), self.counts, torch.ones_like(self.counts))[:, None]
