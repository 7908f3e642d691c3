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

# of each network: its class, and its arguments by the option that gives them
_NETWORKS: dict[str, tuple[Callable[..., BagNetwork], dict[str, str]]] = {
    "abmil": (ABMIL, {"attention_dim": "attention_dim", "gated": "gated"}),
    "transmil": (TransMIL, {"heads": "heads", "landmarks": "landmarks"}),
    "aem": (AEM, {"heads": "heads", "entropy_weight": "entropy_weight", "anneal": "anneal_entropy"}),
    "asmil": (
        ASMIL,
        {name: name for name in ("heads", "queries", "query_dropout", "anchor_weight", "anchor_decay")},
    ),
    "mean": (MeanPool, {}),
    "max": (MaxPool, {}),
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
    network, arguments = _NETWORKS[options.name]
    own = {argument: getattr(options, option) for argument, option in arguments.items()}
    return network(feature_dim_in, width=options.width, dropout=options.dropout, **own)


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
