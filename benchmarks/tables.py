"""Tables as they lie, against scikit-learn: python benchmarks/tables.py FILE[=LABEL] ... [--seeds 5].

Each table is read as ``ncmi train`` reads it. For each seed one stratified split is drawn, the same for all: NCMI and
cross-entropy by their defaults, MLPClassifier and HistGradientBoostingClassifier by scikit-learn's, on the same
training rows, judged on the same test rows. Nothing is tuned. scikit-learn's get the usual preprocessing: medians and
a mark for what is missing, one column a category, and for the MLP standardized numbers.

Printed are means over seeds ± sample standard deviation, and the mean difference from the MLP over all tables.

    python benchmarks/tables.py adult.data german.csv=class ... --seeds 3
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from _timing import command_line, markdown
from ncmi.data.load import load_samples
from ncmi.data.splits import Split
from ncmi.data.tables.table import LabeledTable
from ncmi.objectives.options import objective_options
from ncmi.recipes import Recipe, TableData, Training
from ncmi.training.run import train
from ncmi.training.samples import split_of

METHODS = ("NCMI", "cross-entropy", "MLPClassifier", "HistGradientBoosting")


def scikit_learn(table: LabeledTable, split: Split, method: str, seed: int) -> float:
    """Macro F1 on the test part."""
    frame = table.rows.frame.copy()
    for column in table.columns:
        if column.kind == "category":
            frame[column.name] = frame[column.name].astype(object).where(frame[column.name].notna(), "(missing)")
        elif column.kind == "date":
            frame[column.name] = frame[column.name].astype("int64")
    words = make_column_selector(dtype_include=object)
    numbers = make_column_selector(dtype_exclude=object)
    if method == "MLPClassifier":
        one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3, sparse_output=False)
        filled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        model: Any = make_pipeline(
            make_column_transformer((filled, numbers), (one_hot, words)), MLPClassifier(random_state=seed)
        )
    else:
        ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        model = make_pipeline(
            make_column_transformer(("passthrough", numbers), (ordinal, words)),
            HistGradientBoostingClassifier(random_state=seed),
        )
    labels, rows, test = table.labels.numpy(), split.train.numpy(), split.test.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its default of 200 epochs is its default
        model.fit(frame.iloc[rows], labels[rows])
    return float(f1_score(labels[test], model.predict(frame.iloc[test]), average="macro"))


def ours(table: LabeledTable, data: TableData, objective: str, seed: int) -> float:
    """Macro F1 on the test part, by the objective's own first read-out."""
    recipe = Recipe(data, objective=objective_options(objective)(), training=Training(seed=seed, threads=1))
    with tempfile.TemporaryDirectory() as folder:
        results = train(recipe, Path(folder) / "run", data=table, catch_signals=False)
    return float(results.readouts[results.primary_readouts[0]].test.macro_f1.value or 0.0)


def scores_of(name: str, seeds: int) -> tuple[str, npt.NDArray[np.float64]]:
    """What a table is, and macro F1 ``[methods, seeds]``."""
    path, _, label = name.partition("=")
    data = TableData(path, label_column=label or None, bad="skip")
    table = load_samples(data)
    assert isinstance(table, LabeledTable)
    rows = []
    for seed in range(seeds):
        split = split_of(data, table, seed)
        rows.append(
            [ours(table, data, objective, seed) for objective in ("ncmi", "cross_entropy")]
            + [scikit_learn(table, split, method, seed) for method in METHODS[2:]]
        )
    about = f"{table.name} ({len(table):,} rows, {len(table.columns)} columns, {len(table.class_names)} classes)"
    return about, np.array(rows).T


if __name__ == "__main__":
    command = command_line(__doc__)
    command.add_argument("tables", nargs="+", metavar="FILE[=LABEL]")
    command.add_argument("--seeds", type=int, default=5)
    arguments = command.parse_args()
    lines, means = [], []
    for name in arguments.tables:
        about, scores = scores_of(name, arguments.seeds)
        means.append(scores.mean(1))
        spread = scores.std(1, ddof=1) if arguments.seeds > 1 else np.zeros(len(METHODS))
        lines.append([about, *(f"{m:.4f} ± {s:.4f}" for m, s in zip(scores.mean(1), spread, strict=True))])
        print(lines[-1], flush=True)
    print(markdown(["macro F1", *METHODS], lines))
    difference = np.mean(np.array(means)[:, :2] - np.array(means)[:, 2:3], axis=0)
    print(f"\nmean difference from MLPClassifier: NCMI {difference[0]:+.4f}, cross-entropy {difference[1]:+.4f}")
