"""What the loss pays for features that are all the same: python benchmarks/collapse.py [RUN …].

With Γ by KL(Q_c‖P), as in the paper, a single direction for all samples costs, at T = 0.2, less than half of what an
uninformed network costs: a minimum in which nothing is told apart. With KL(P‖Q_c) twice that is impossible: see
docs/results.md. In float64, with axis anchors (κ = 10) and every class once; takes a second.

For finished runs of NCMI: the length of the mean direction of the test features (1 where all are the same) and its
largest components.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

import ncmi
from _timing import markdown

FORMS = {
    "p = 1, KL(Q_c‖P), mean of ratios (released)": (1.0, "centroid_to_sample", "mean_of_ratios"),
    "p = 1, KL(Q_c‖P), ratio of means (paper)": (1.0, "centroid_to_sample", "ratio_of_means"),
    "p = 1, KL(P‖Q_c), mean of ratios": (1.0, "sample_to_centroid", "mean_of_ratios"),
    "p = −4, KL(P‖Q_c), likelihood": (-4.0, "sample_to_centroid", "likelihood"),
}
HEAD = ("form", "C", "D", "T", "uninformed", "on one axis", "on two axes", "perfect")


def loss_of(features: Tensor, temperature: float, form: str) -> float:
    """Loss of one feature ``[D]`` a class, ``[C, D]``, against axis anchors."""
    power, direction, kind = FORMS[form]
    classes, width = features.shape
    anchors = ncmi.log_nsf(10 * torch.eye(width, dtype=torch.float64)[:classes])
    log_p = ncmi.to_log_distribution(features, None, temperature)
    options = {"separation_power": power, "separation_direction": direction, "form": kind}
    return float(ncmi.ncmi_loss(log_p, torch.arange(classes), anchors, **options))


def costs() -> None:
    """The table of losses."""
    rows = []
    for form in FORMS:
        for classes, width, temperature in ((100, 128, 0.2), (100, 512, 0.2), (100, 512, 0.5), (1000, 2048, 0.2)):
            uninformed = torch.ones(classes, width, dtype=torch.float64)
            collapsed = torch.zeros(2, classes, width, dtype=torch.float64)
            collapsed[0, :, 0] = -1
            collapsed[1, :, :2] = -1
            perfect = torch.eye(width, dtype=torch.float64)[:classes]
            losses = [loss_of(features, temperature, form) for features in (uninformed, *collapsed, perfect)]
            rows.append([form, str(classes), str(width), str(temperature), *(f"{loss:.4f}" for loss in losses)])
    print(markdown(HEAD, rows))


def direction_of(run: Path) -> str:
    """The mean direction of a run's test features."""
    from ncmi.training.model import load_model
    from ncmi.training.run_folder import RunFolder

    objective = load_model(run).objective
    assert isinstance(objective, ncmi.NCMILoss), f"{run}: not a run of NCMI"
    features = torch.from_numpy(RunFolder.open(run).outputs().features).float()
    mean = normalize(features if objective.center is None else features - objective.center).mean(0)
    largest = mean.abs().topk(3).indices.tolist()
    return f"{run.name}: length {float(mean.norm()):.4f}; " + ", ".join(f"{float(mean[i]):+.4f} e{i}" for i in largest)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(direction_of(Path(name)))
    if len(sys.argv) == 1:
        costs()
