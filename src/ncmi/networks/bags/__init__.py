"""Networks from bags of patch features to slide features, made by name, one file a network.

``packing`` says what all of them do and how they take bags of different sizes; ``attention`` is what most share.
"""

from collections.abc import Callable

from ncmi.networks.bags.abmil import ABMIL
from ncmi.networks.bags.aem import AEM
from ncmi.networks.bags.asmil import ASMIL
from ncmi.networks.bags.packing import BagModule, BagOutput, PackedNetwork
from ncmi.networks.bags.pooling import MaxPool, MeanPool
from ncmi.networks.bags.transmil import TransMIL
from ncmi.recipes import BagNetwork

# of each network: its class, and its arguments by the option that gives them
_NETWORKS: dict[str, tuple[Callable[..., PackedNetwork], dict[str, str]]] = {
    "abmil": (ABMIL, {"attention_dim": "attention_dim", "gated": "gated"}),
    "transmil": (TransMIL, {"heads": "heads", "landmarks": "landmarks"}),
    "aem": (AEM, {"heads": "heads", "entropy_weight": "entropy_weight", "anneal": "anneal_entropy"}),
    "asmil": (ASMIL, {name: name for name in ("heads", "queries", "query_dropout", "anchor_weight", "anchor_decay")}),
    "mean": (MeanPool, {}),
    "max": (MaxPool, {}),
}


def make_bag_network(options: BagNetwork, instance_dim: int) -> BagModule:
    """The network that ``options`` name, for patch features of width ``instance_dim``, newly initialized.

    Raises:
        ValueError: for an unknown name, or options that do not fit, such as heads that do not divide the width.

    Example:
        >>> make_bag_network(BagNetwork("aem"), instance_dim=1024).feature_dim
        512
    """
    if options.name not in _NETWORKS:
        raise ValueError(f"unknown bag network {options.name!r}; known: {', '.join(_NETWORKS)}")
    network, arguments = _NETWORKS[options.name]
    chosen = {argument: getattr(options, option) for argument, option in arguments.items()}
    made = network(instance_dim, width=options.width, dropout=options.dropout, **chosen)
    if options.output_layer == "linear":
        made.add_output_layer()
    return made


__all__ = ["ABMIL", "AEM", "ASMIL", "BagModule", "BagOutput", "MaxPool", "MeanPool", "TransMIL", "make_bag_network"]
