"""The nearest centroids of a feature among very many classes: exactly, in chunks, or by an index of FAISS.

``D·KL(P‖Q_c) = D·KL(P‖U) + gap_c − Σ_i e_i β_ci``, so that the nearest centroid has the largest inner product of
``(β_c, −gap_c)`` with ``(e, 1)``, ``e = D·P − 1``: what an index for inner products looks for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncmi.loss.autograd import full_products
from ncmi.loss.centroids import CentroidClassifier
from ncmi.loss.divergence import concentration, ratio_to_uniform
from ncmi.loss.module import NCMIBase

_CHUNK = 2**16  # classes compared at a time
_ROWS = 4096  # of the table made at a time
_SPARE = 8  # candidates besides those asked for, since the table's divergences are rounded


class Neighbors(NamedTuple):
    """The k nearest centroids, nearest first: ``classes [B, k]``, and ``KL(P‖Q_c)`` in nats, ``divergences [B, k]``."""

    classes: Tensor
    divergences: Tensor


class CentroidSearch:
    """Top-k classes of a loss, a head or a fitted :class:`ncmi.CentroidClassifier`, whatever C is.

    The centroids' table, ``[C, D]`` in the features' precision, is made at the first call and kept until a parameter or
    buffer that it comes from changes or is another; beyond it a call takes ``B × chunk_classes`` numbers.

    Args:
        source: whose centroids; looked at anew in each call.
        chunk_classes: classes compared at a time.

    Example:
        >>> from ncmi import NCMIHead
        >>> CentroidSearch(NCMIHead(8, 5)).top_k(torch.eye(8)[:2], 1).classes.flatten()
        tensor([0, 1])
    """

    def __init__(self, source: NCMIBase | CentroidClassifier, chunk_classes: int = _CHUNK) -> None:
        if chunk_classes < 1:
            raise ValueError(f"chunk_classes={chunk_classes}: use at least 1")
        self.source, self.chunk_classes = source, chunk_classes
        self._kept: tuple[list[Tensor], tuple[Any, ...], Tensor, Tensor] | None = None
        self._index: tuple[Tensor, str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None, "_index": None}

    @torch.no_grad()
    def table(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """β ``[C, D]`` and gap ``[C]``, infinite for a class that had no sample."""
        origin = list(self.source.state_tensors())
        key = (dtype, *(0 if x.is_inference() else x._version for x in origin))
        kept = self._kept
        if kept is None or kept[1] != key or any(a is not b for a, b in zip(kept[0], origin, strict=True)):
            self._kept = kept = None  # not two tables at once
            classes, device = self.source.num_classes, origin[0].device
            beta = torch.empty(classes, self.source.feature_dim, dtype=dtype, device=device)
            gap = torch.empty(classes, dtype=dtype, device=device)
            for start in range(0, classes, _ROWS):
                rows = slice(start, min(start + _ROWS, classes))
                values, present = self.source.beta_rows(rows)
                beta[rows] = values
                gap[rows] = (torch.expm1(values) - values).sum(-1).masked_fill(~present, torch.inf)
            self._kept = kept = origin, key, beta, gap
        return kept[2], kept[3]

    @torch.no_grad()
    def top_k(self, features: Tensor, k: int) -> Neighbors:
        """The k nearest centroids of features ``[B, D]``, 1 ≤ k ≤ C.

        Raises:
            ValueError: for another k.
        """
        alpha, excess = self._points(features, k)
        beta, gap = self.table(alpha.dtype)
        value = alpha.new_full((len(alpha), 0), torch.inf)
        classes = torch.empty(len(alpha), 0, dtype=torch.int64, device=alpha.device)
        count = min(k + _SPARE, len(gap))
        with full_products(alpha):
            for start in range(0, len(gap), self.chunk_classes):
                rows = slice(start, start + self.chunk_classes)
                part = torch.addmm(gap[rows], excess, beta[rows].T, alpha=-1)
                least = part.topk(min(count, part.shape[1]), largest=False, sorted=False)
                value = torch.cat((value, least.values), dim=1)
                classes = torch.cat((classes, least.indices + start), dim=1)
                if value.shape[1] > count:
                    value, column = value.topk(count, largest=False, sorted=False)
                    classes = classes.gather(1, column)
        return self._exactly(alpha, classes, k)

    @torch.no_grad()
    def approximate_top_k(self, features: Tensor, k: int, index: str = "Flat", probes: int = 16) -> Neighbors:
        """As :meth:`top_k`, of the candidates that an index of FAISS finds; divergences are exact.

        Args:
            features: ``[B, D]``.
            k: 1 ≤ k ≤ C.
            index: of ``faiss.index_factory``: "Flat" finds all, "IVF4096,Flat" or "HNSW32" most in less time.
            probes: cells of an "IVF" index that are looked at.

        Raises:
            ImportError: without ``faiss``; the message names the cure.
        """
        try:
            import faiss
        except ImportError as error:
            raise ImportError("approximate search needs faiss: pip install 'ncmi[index]'") from error
        alpha, excess = self._points(features, k)
        beta, gap = self.table(alpha.dtype)
        if self._index is None or self._index[0] is not beta or self._index[1] != index:
            built = faiss.index_factory(beta.shape[1] + 1, index, faiss.METRIC_INNER_PRODUCT)
            # an absent class has a bias that no product reaches, and that a mean of vectors still holds
            bias = gap.masked_fill(gap.isinf(), 1e6).neg().unsqueeze(1)
            vectors = torch.cat((beta, bias), dim=1).float().cpu().numpy()
            built.train(vectors)
            built.add(vectors)
            self._index = beta, index, built
        built = self._index[2]
        if hasattr(built, "nprobe"):
            built.nprobe = probes
        query = torch.cat((excess, torch.ones_like(excess[:, :1])), dim=1).float().cpu().numpy()
        _, classes = built.search(query, min(k + _SPARE, len(gap)))
        return self._exactly(alpha, torch.from_numpy(classes).to(alpha.device), k)

    def _points(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """α and e of features, ``[B, D]``."""
        if not 1 <= k <= self.source.num_classes:
            raise ValueError(f"k={k}: choose 1 to {self.source.num_classes}, the number of classes")
        alpha = ratio_to_uniform(self.source.log_distribution(features))
        return alpha, torch.expm1(alpha)

    def _exactly(self, alpha: Tensor, classes: Tensor, k: int) -> Neighbors:
        """The k nearest of candidates ``[B, n]``, −1 for none, without cancellation."""
        beta, gap = self.table(alpha.dtype)
        columns = [concentration(alpha, beta[column.clamp_min(0)]) for column in classes.T]
        absent = (classes < 0) | gap[classes.clamp_min(0)].isinf()
        divergence = torch.stack(columns, dim=1).masked_fill(absent, torch.inf)
        # by number where divergences are equal
        order = classes.argsort(dim=1, stable=True)
        divergence, classes = divergence.gather(1, order), classes.gather(1, order)
        nearest = divergence.argsort(dim=1, stable=True)[:, :k]
        return Neighbors(classes.gather(1, nearest), divergence.gather(1, nearest))
