"""A slide classifier on a simulated cohort: features with known truth, ABMIL, NCMI, F1 and AUC over patients.

python examples/slides.py --out runs/example-slides
"""

import argparse
from pathlib import Path

from ncmi.objectives.options import NCMIOptions
from ncmi.recipes import BagData, BagNetwork, Recipe, Training
from ncmi.slides.simulation import SimulationOptions, write_simulation
from ncmi.training.run import train

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default=Path("runs/example-slides"))
parser.add_argument("--scale", type=float, default=0.01, help="share of a real slide's patches that is made")
parser.add_argument("--epochs", type=int, default=5)
options = parser.parse_args()

simulation = SimulationOptions(cohort="bracs", feature_dim=64, scale=options.scale)
cohort = write_simulation(options.out / "cohort", options=simulation)
recipe = Recipe(
    BagData(
        str(cohort / "features"),
        labels=str(cohort / "labels.csv"),
        label_column="label_coarse",
        split_column="split",
    ),
    BagNetwork("abmil"),
    NCMIOptions(),
    Training(epochs=options.epochs, batch_size=1, learning_rate=1e-3, schedule="cosine", selection="best"),
)
results = train(recipe, options.out / "run")
for name in ("head", "cc", "lp"):
    f1, auc = results.readouts[name].test.macro_f1, results.readouts[name].test.macro_auc
    print(f"{name}: macro F1 {f1.value:.3f} ({f1.low:.3f}–{f1.high:.3f}), macro AUC {auc.value:.3f}")
print(f"the page: ncmi report {options.out / 'run'}")
