"""Every read-out of every entry of a comparison, also those that an entry is not judged by.

    python benchmarks/readouts.py FOLDER     # of a comparison, e.g. runs/reproduce-small/table1/resnet_small

A linear probe or nearest neighbours can be put on any loss's features: without that, a gain of the read-out looks like
one of the loss.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean, stdev

from ncmi.reports import read_comparison

READOUTS = {"head": "head", "cc": "CC", "lp": "LP", "knn": "20 neighbours"}


def main(folder: Path) -> None:
    print(f"| test accuracy, % | n | {' | '.join(READOUTS.values())} |\n|---|---:|---:|---:|---:|---:|")
    for entry in read_comparison(folder).entries:
        finished = [run.results for run in entry.runs if run.results is not None]
        cells = []
        for name in READOUTS:
            found = [100 * results.readouts[name].test_accuracy for results in finished]
            cells.append(f"{mean(found):.2f} ± {stdev(found):.2f}" if len(found) > 1 else f"{found[0]:.2f}")
        print(f"| {entry.label} | {len(finished)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
