"""Every read-out of every entry of a comparison, also those that an entry is not judged by.

    python benchmarks/readouts.py FOLDER     # of a comparison, e.g. runs/reproduce-small/table1/resnet_small

A linear probe or nearest neighbors can be put on any loss's features: without that, a gain of the read-out looks like
one of the loss.
"""

import sys

from _timing import markdown
from ncmi.readouts.metrics import MISSING, PERCENT
from ncmi.recipes.names import READOUTS
from ncmi.report.records import read_comparison
from ncmi.report.statistics import comparison_rows

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    comparison = read_comparison(sys.argv[1], may_be_unfinished=True)
    scores = {(row.entry.label, row.readout): row.scores["accuracy"] for row in comparison_rows(comparison)}
    texts = {key: PERCENT.mean_sd(score.mean, score.sd) for key, score in scores.items()}
    rows = [
        [entry.label, str(len(entry.runs)), *(texts.get((entry.label, readout), MISSING) for readout in READOUTS)]
        for entry in comparison.entries
    ]
    print(markdown(["test accuracy, %", "n", *READOUTS.values()], rows))
