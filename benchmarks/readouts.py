"""Every read-out of every entry of a comparison, also those that an entry is not judged by.

    python benchmarks/readouts.py FOLDER     # of a comparison, e.g. runs/reproduce-small/table1/resnet_small

A linear probe or nearest neighbors can be put on any loss's features: without that, a gain of the read-out looks like
one of the loss.
"""

import sys

from ncmi.recipes.names import READOUTS
from ncmi.report.records import read_comparison
from ncmi.report.statistics import comparison_rows
from ncmi.report.text import MISSING, PERCENT

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    comparison = read_comparison(sys.argv[1], may_be_unfinished=True)
    print(f"| test accuracy, % | n | {' | '.join(READOUTS.values())} |\n|---|---:|" + "---:|" * len(READOUTS))
    rows = {(row.entry.label, row.readout): row for row in comparison_rows(comparison)}
    for entry in comparison.entries:
        scores = [
            rows[entry.label, name].scores["accuracy"] if (entry.label, name) in rows else None for name in READOUTS
        ]
        cells = [MISSING if score is None else PERCENT.mean_sd(score.mean, score.sd) for score in scores]
        print(f"| {entry.label} | {len(entry.runs)} | {' | '.join(cells)} |")
