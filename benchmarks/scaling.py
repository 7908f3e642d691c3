"""How the loss depends on width, temperature and number of classes: the figures behind docs/findings.md.

    python benchmarks/scaling.py [--pictures docs/images]

Pure computation in float64, seconds; each feature has its own length (``feature_length="own"``). Features are made with
a given cosine to their own class's direction and none to the others'; what is told is the ratio a/b, what the
likelihood makes of it, and how steeply centroids can move.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from _timing import markdown
from ncmi.loss import equation
from ncmi.loss.forms import likelihood_power

CLASSES = 20
WIDTHS = (32, 128, 512, 2048)
TEMPERATURES = (0.1, 0.2, 0.5, 1.0)
COSINE = 0.7


def directions(classes: int, width: int) -> Tensor:
    """Orthogonal unit vectors ``[C, D]`` without a common part, as directions spread over all components."""
    rows = torch.randn(classes, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr((rows - rows.mean(1, keepdim=True)).T).Q.T


def with_cosine(own: Tensor, others: Tensor, cosine: float) -> Tensor:
    """A unit vector with this cosine to ``own`` and none to ``others`` or to (1, …, 1)."""
    generator = torch.Generator().manual_seed(1)
    rest = torch.randn(len(own), dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(torch.vstack([torch.ones_like(own), own, others]).T).Q
    rest = F.normalize(rest - basis @ (basis.T @ rest), dim=0)
    return cosine * own + math.sqrt(1 - cosine**2) * rest


def ratio(feature: Tensor, logits: Tensor, temperature: float) -> float:
    """a/b of class 0 with the mean over the others for b."""
    p, q = equation.distribution(feature[None], None, temperature), equation.simplex(logits)
    divergence = equation.divergences(p, q, "sample_to_centroid")[0]
    return float(divergence[0] / divergence[1:].mean())


def ratios_table() -> None:
    """a/b at a cosine of 0.7: with centroids on the features' sphere it depends on neither D nor T."""
    print(f"a/b of a feature with cosine {COSINE} to its own class and 0 to {CLASSES - 1} others (1 − cosine = 0.3)\n")
    heads = [f"{kind}, T = {t:g}" for kind in ("sphere", "κ = 10") for t in TEMPERATURES]
    rows = []
    for width in WIDTHS:
        own = directions(CLASSES, width)
        feature = with_cosine(own[0], own[1:], COSINE)
        axis = torch.eye(width, dtype=torch.float64)[:CLASSES]
        on_axis = with_cosine(axis[0], axis[1:], COSINE)
        cells = [ratio(feature, own / t, t) for t in TEMPERATURES]
        cells += [ratio(on_axis, 10 * axis, t) for t in TEMPERATURES]
        rows.append([str(width), *(f"{cell:.3f}" for cell in cells)])
    print(markdown(["D", *heads], rows))


def mobility_table() -> None:
    """How far a centroid moves along its own axis for a step of its logits or direction."""
    print("\nHow far Q_c moves for a unit step of an axis anchor's own logit, in parts of the largest possible\n")
    rows = []
    for name, reach in (("κ = 10", lambda t: 10.0), ("κ = 1/T (sphere)", lambda t: 1 / t)):
        slopes = [torch.sigmoid(torch.tensor(reach(t))) for t in TEMPERATURES]
        rows.append([name, *(f"{float(4 * s * (1 - s)):.2g}" for s in slopes)])
    print(markdown(["anchor", *(f"T = {t:g}" for t in TEMPERATURES)], rows))


def power_table() -> None:
    """Cosine that a sample needs for π_y = 0.9 against C − 1 orthogonal classes, by γ."""
    powers = (4.0, 8.0, 16.0)
    print("\ncosine to the own class that makes π_y = 0.9 where all others are orthogonal\n")
    rows = []
    for classes in (2, 3, 10, 26, 100, 1000):
        default = likelihood_power(classes, own_length=True)
        needed = [1 - (9 * (classes - 1)) ** (-1 / p) for p in (default, *powers)]
        rows.append([str(classes), f"{default:.1f}", *(f"{cosine:.2f}" for cosine in needed)])
    print(markdown(["C", "default γ", "at the default", *(f"at γ = {p:g}" for p in powers)], rows))


def pull_table() -> None:
    """Whom the gradient listens to: the nearest wrong class's share, and the pull of a hopeless label."""
    print("\npull of a sample on its feature (|dL/df̂| along the own direction), and the nearest wrong class's share\n")
    rows = []
    for classes in (26, 100):
        gamma = likelihood_power(classes, own_length=True)
        for name, q in (("p = 1", None), ("likelihood", 0.0), ("likelihood, q = 0.7", 0.7)):
            # K_c ∝ 1 − cos_c; uninformed: all cosines 0; sure and wrong: 0.8 to another class, 0 to the label's
            near = torch.full((classes - 1,), 0.9, dtype=torch.float64)
            near[0] = 0.5
            pulls = []
            for largest in (0.0, 0.8):
                k = torch.ones(classes, dtype=torch.float64)
                k[1] = 1 - largest
                pi = k**-gamma / (k**-gamma).sum()
                pulls.append(float(1 / k[1:].mean()) if q is None else float(gamma * pi[0] ** q * (1 - pi[0])))
            share = 1 / (classes - 1) if q is None else float(near[0] ** -gamma / (near**-gamma).sum())
            rows.append([name, str(classes), *(f"{pull:.3g}" for pull in pulls), f"{share:.2f}"])
    print(markdown(["loss", "C", "uninformed", "label wrong, model sure", "share of the nearest wrong class"], rows))
    print("\n(nearest wrong class at cosine 0.5, the others at 0.1)")


def merging_table() -> None:
    """What it costs that classes share a centroid, as learned centroids can: features have cosine 0.99 to their own."""
    width, classes = 64, 20
    own = directions(classes, width)
    merged = {
        "all apart": own,
        "in pairs": own[torch.arange(classes) // 2],
        "in two groups": own[torch.arange(classes) % 2],
    }
    print(f"\nloss of features with cosine 0.99 to their own class's centroid, C = {classes}\n")
    rows = []
    forms: dict[str, dict[str, Any]] = {
        "p = 1, KL(Q_c‖P), mean of ratios": {},
        "p = 1, KL(P‖Q_c), mean of ratios": {"direction": "sample_to_centroid"},
        "likelihood, default γ": {
            "direction": "sample_to_centroid",
            "form": "likelihood",
            "power": -likelihood_power(classes, own_length=True),
        },
    }
    for name, options in forms.items():
        losses = []
        for centroids in merged.values():
            features = torch.stack([with_cosine(w, own[:0], 0.99) for w in centroids])
            p, q = equation.distribution(features, None, 0.5), equation.simplex(centroids / 0.5)
            losses.append(float(equation.loss(p, torch.arange(classes), q, **options)))
        rows.append([name, *(f"{loss:.3f}" for loss in losses)])
    print(markdown(["loss", *merged], rows))


def power_picture(folder: Path) -> Path:
    """π_y by the cosine to the own class, all others orthogonal, for three numbers of classes and two choices of γ."""
    cosine = np.linspace(0, 1, 201)
    frames = []
    for classes in (10, 100, 1000):
        for name, power in (("γ = 4", 4.0), ("γ = max(4, 2 log C)", likelihood_power(classes, own_length=True))):
            likelihood = 1 / (1 + (classes - 1) * (1 - cosine) ** power)
            frames.append(pd.DataFrame({"cosine": cosine, "π": likelihood, "power": name, "classes": f"{classes:,}"}))
    chart = (
        alt.Chart(pd.concat(frames))
        .mark_line()
        .encode(
            x=alt.X("cosine:Q", title="cosine of the feature to its own centroid"),
            y=alt.Y("π:Q", title="π of its own class"),
            color=alt.Color("classes:N", title="classes", sort=None),
        )
        .properties(width=260, height=200)
        .facet(facet=alt.Facet("power:N", title=None, sort="descending"), columns=2)
        .configure(font="Liberation Sans, Arial, sans-serif", background="white")
    )
    path = folder / "mathematics-power.png"
    chart.save(str(path), ppi=120)
    return path


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument(
        "--pictures", type=Path, help="folder for the picture of docs/mathematics.md, and nothing else"
    )
    arguments = command.parse_args()
    if arguments.pictures is not None:
        print(power_picture(arguments.pictures))
        raise SystemExit
    ratios_table()
    mobility_table()
    power_table()
    pull_table()
    merging_table()
