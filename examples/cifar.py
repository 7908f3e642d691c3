"""CIFAR-100 on one CPU core: 16×16 pixels, a network of 0.3 M parameters, NCMI beside cross-entropy.

NCMI_DATA=~/data python examples/cifar.py            # minutes; --epochs 1 for a look
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions
from ncmi.recipes import named_recipe
from ncmi.training.run import train

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=12)
parser.add_argument("--train-per-class", type=int, default=200)
parser.add_argument("--out", type=Path, default=Path("runs"))
options = parser.parse_args()

recipe = named_recipe("cifar100.small")
recipe = replace(
    recipe,
    data=replace(recipe.data, train_per_class=options.train_per_class),
    training=replace(recipe.training, epochs=options.epochs),
)
for objective in (CrossEntropyOptions(), NCMIOptions()):
    results = train(replace(recipe, objective=objective), options.out / f"cifar-{objective.name}")
    # like with like: every loss by its trained head, by centroid comparison and by a linear probe
    accuracies = ", ".join(f"{name} {results.readouts[name].test.accuracy.value:.2%}" for name in ("head", "cc", "lp"))
    print(f"{objective.label}: {accuracies}")
