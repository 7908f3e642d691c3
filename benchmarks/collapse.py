"""What the loss pays for features that are all the same: python benchmarks/collapse.py.

With Γ by KL(Q_c‖P), as in the paper, a single direction for all samples costs, at T = 0.2, less than half of what an
uninformed network costs: a minimum in which nothing is told apart. With KL(P‖Q_c) twice that is impossible: see
docs/results.md. In float64, with axis anchors (κ = 10) and every class once; takes a second.
"""

from __future__ import annotations

import torch
from torch import Tensor

import ncmi

FORMS = {
    "p = 1, KL(Q_c‖P), mean of ratios (released)": (1.0, "centroid_to_sample", "mean_of_ratios"),
    "p = 1, KL(Q_c‖P), ratio of means (paper)": (1.0, "centroid_to_sample", "ratio_of_means"),
    "p = 1, KL(P‖Q_c), mean of ratios": (1.0, "sample_to_centroid", "mean_of_ratios"),
    "p = −4, KL(P‖Q_c), likelihood (default)": (-4.0, "sample_to_centroid", "log_likelihood"),
}


def loss_of(features: Tensor, temperature: float, form: str) -> float:
    """Loss of one feature ``[D]`` a class, ``[C, D]``, against axis anchors."""
    power, direction, reduction = FORMS[form]
    classes, width = features.shape
    anchors = ncmi.log_nsf(10 * torch.eye(width, dtype=torch.float64)[:classes])
    log_p = ncmi.to_log_distribution(features, None, temperature)
    loss = ncmi.ncmi_loss(
        log_p,
        torch.arange(classes),
        anchors,
        separation_power=power,
        separation_direction=direction,
        reduction=reduction,
    )
    return float(loss)


def main() -> None:
    print("| form | C | D | T | uninformed | collapsed | perfect |\n|---|---:|---:|---:|---:|---:|---:|")
    for form in FORMS:
        for classes, width, temperature in ((100, 128, 0.2), (100, 512, 0.2), (100, 512, 0.5), (1000, 2048, 0.2)):
            uninformed = torch.ones(classes, width, dtype=torch.float64)
            collapsed = torch.zeros(classes, width, dtype=torch.float64)
            collapsed[:, 0] = -1
            perfect = torch.eye(width, dtype=torch.float64)[:classes]
            costs = [loss_of(features, temperature, form) for features in (uninformed, collapsed, perfect)]
            print(f"| {form} | {classes} | {width} | {temperature} | " + " | ".join(f"{c:.4f}" for c in costs) + " |")


if __name__ == "__main__":
    main()
