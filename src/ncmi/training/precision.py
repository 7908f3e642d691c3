"""Precision of training, by Lightning Fabric's plugins."""

from __future__ import annotations

from typing import Any

from lightning_fabric.plugins import DoublePrecision


class FeaturesInFloat64(DoublePrecision):
    """Fabric's "64-true" with features that stay in float64 on their way to the objective."""

    def convert_output(self, data: Any) -> Any:
        return data


def precision_options(precision: str) -> dict[str, Any]:
    """The arguments of ``Fabric`` for a recipe's precision."""
    return {"plugins": [FeaturesInFloat64()]} if precision == "64-true" else {"precision": precision}
