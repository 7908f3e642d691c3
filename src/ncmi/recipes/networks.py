"""Which network makes the feature: :class:`Network` of tables and images, :class:`BagNetwork` of bags."""

import math
from dataclasses import dataclass
from typing import Literal

from ncmi.loss.forms import check_choice, check_range

TIMM = "timm:"
"""What the name of a network of timm begins with."""


@dataclass(frozen=True)
class Network:
    """The network that makes the feature.

    Attributes:
        name: "mlp" (tables, flattened images), "convnet" (images), "resnet18", "resnet34", "resnet50", "resnet101",
            "resnet9", "resnet9_early" (quicker) or "resnet_small" (small color images), "timm:NAME" for a network of
            timm where that is installed, or "auto" (mlp or convnet, by the shape of a sample).
        width: hidden width, or channels of the first block; 0 for the network's usual one.
        depth: hidden layers, or blocks (of each stage, for resnet_small); 0 for the network's usual one.
        feature_dim: D, the width of the feature; 0 for 128, or more where there are more classes. That of a residual
            network follows from its width, that of timm's is the network's own.
        dropout: probability of dropping a hidden unit (mlp, convnet).
        weights: safetensors or .pth file with weights of this network to start from; see :mod:`ncmi.networks.weights`.
        stem: how resnet18 to resnet101 begin: "large", as on ImageNet (7×7, stride 2, then maxima), "small" (3×3), or
            "auto": large from 96 pixels on.
        blurpool: residual networks blur what they halve.
        zero_init: each block of a residual network begins as its shortcut.
        test_flip: an image that is judged or predicted has the mean feature of itself and its mirror image; costs
            twice the time there. Not for digits or letters.
    """

    name: str = "auto"
    width: int = 0
    depth: int = 0
    feature_dim: int = 0
    dropout: float = 0.0
    weights: str | None = None
    stem: Literal["auto", "small", "large"] = "auto"
    blurpool: bool = False
    zero_init: bool = False
    test_flip: bool = False

    def __post_init__(self) -> None:
        check_range(self, "width", "depth", "feature_dim", least=0)
        check_range(self, "dropout", least=0, below=1)


@dataclass(frozen=True)
class BagNetwork:
    """The network that makes a slide's feature of its patches' features; see :mod:`ncmi.networks.bags`.

    Attributes:
        name: "abmil", "transmil", "aem", "asmil", or "mean" and "max" pooling.
        width: d of the first layer Linear(D_feat → d) + ReLU; 0 for 128, 256 or 512 by D_feat.
        dropout: after the first layer.
        attention_dim: hidden width of ABMIL's attention.
        gated: ABMIL with gated attention.
        heads: of attention in TransMIL, AEM and ASMIL.
        landmarks: of TransMIL's Nyström attention; 0 for d/2.
        queries: learnable queries of ASMIL.
        query_dropout: share of ASMIL's tokens that a training step leaves out.
        output_layer: "linear" for a layer d → d behind the pooling; "auto" for one where the loss compares features
            themselves (NCMI) and they are sums of rectified values, none of them negative (abmil, mean, max).
        entropy_weight: λ of AEM's negative attention entropy.
        anneal_entropy: λ falls to zero along half a cosine over the run, as published.
        anchor_weight: weight of ASMIL's divergence from the anchor's attention.
        anchor_decay: of ASMIL's anchor, a moving average of the network.
    """

    name: Literal["abmil", "transmil", "aem", "asmil", "mean", "max"] = "abmil"
    width: int = 0
    dropout: float = 0.0
    attention_dim: int = 128
    gated: bool = True
    heads: int = 8
    landmarks: int = 0
    queries: int = 4
    query_dropout: float = 0.5
    output_layer: Literal["auto", "none", "linear"] = "auto"
    entropy_weight: float = 0.1
    anneal_entropy: bool = True
    anchor_weight: float = 1.0
    anchor_decay: float = 0.999

    def __post_init__(self) -> None:
        check_range(self, "width", "landmarks", least=0)
        check_range(self, "entropy_weight", "anchor_weight", least=0, below=math.inf)
        check_choice("output_layer", self.output_layer, Literal["auto", "none", "linear"])
        check_range(self, "attention_dim", "heads", "queries", least=1)
        check_range(self, "dropout", "query_dropout", "anchor_decay", least=0, below=1)
