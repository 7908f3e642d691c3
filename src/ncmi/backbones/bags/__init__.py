"""Networks from bags of patch features to slide features, made by name."""

from __future__ import annotations

from collections.abc import Callable

from ncmi.backbones.bags.abmil import ABMIL
from ncmi.backbones.bags.aem import AEM
from ncmi.backbones.bags.asmil import ASMIL
from ncmi.backbones.bags.floors import MaxPool, MeanPool
from ncmi.backbones.bags.interface import BagNetwork, BagOutput
from ncmi.backbones.bags.transmil import TransMIL
from ncmi.recipes.slides import BagNetwork as Options


def _abmil(options: Options, feature_dim_in: int) -> BagNetwork:
    return ABMIL(
        feature_dim_in,
        width=options.width,
        dropout=options.dropout,
        attention_dim=options.attention_dim,
        gated=options.gated,
    )


def _transmil(options: Options, feature_dim_in: int) -> BagNetwork:
    return TransMIL(
        feature_dim_in,
        width=options.width,
        dropout=options.dropout,
        heads=options.heads,
        landmarks=options.landmarks,
    )


def _aem(options: Options, feature_dim_in: int) -> BagNetwork:
    return AEM(
        feature_dim_in,
        width=options.width,
        dropout=options.dropout,
        heads=options.heads,
        entropy_weight=options.entropy_weight,
        anneal=options.anneal_entropy,
    )


def _asmil(options: Options, feature_dim_in: int) -> BagNetwork:
    return ASMIL(
        feature_dim_in,
        width=options.width,
        dropout=options.dropout,
        heads=options.heads,
        queries=options.queries,
        query_dropout=options.query_dropout,
        anchor_weight=options.anchor_weight,
        anchor_decay=options.anchor_decay,
    )


def _mean(options: Options, feature_dim_in: int) -> BagNetwork:
    return MeanPool(feature_dim_in, width=options.width, dropout=options.dropout)


def _max(options: Options, feature_dim_in: int) -> BagNetwork:
    return MaxPool(feature_dim_in, width=options.width, dropout=options.dropout)


_NETWORKS: dict[str, Callable[[Options, int], BagNetwork]] = {
    "abmil": _abmil,
    "transmil": _transmil,
    "aem": _aem,
    "asmil": _asmil,
    "mean": _mean,
    "max": _max,
}


def make_bag_network(options: Options, feature_dim_in: int) -> BagNetwork:
    """The network that ``options`` name, for patch features of width ``feature_dim_in``, newly initialised.

    Raises:
        ValueError: for an unknown name, or options that do not fit, such as heads that do not divide the width.

    Example:
        >>> make_bag_network(Options("aem"), feature_dim_in=1024).feature_dim
        512
    """
    if options.name not in _NETWORKS:
        raise ValueError(f"unknown bag network {options.name!r}; known: {', '.join(_NETWORKS)}")
    return _NETWORKS[options.name](options, feature_dim_in)


__all__ = [
    "ABMIL",
    "AEM",
    "ASMIL",
    "BagNetwork",
    "BagOutput",
    "MaxPool",
    "MeanPool",
    "TransMIL",
    "make_bag_network",
]
