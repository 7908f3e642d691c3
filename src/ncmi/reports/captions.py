"""What stands under the figures: what is drawn, what the symbols mean, and what must not be read into it."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports.figures.projection import MOST_POINTS
from ncmi.reports.records import Results

SYMBOLS = (
    "CMI is the concentration: how far, in nats, the output distributions of a class lie from their "
    "centroid (smaller is tighter). Γ is the separation: how far they lie from the centroids of the "
    "other classes (larger is further apart). NCMI = CMI / Γ."
)
OWN_SIMPLEX = (
    "Each objective is measured on its own output distribution (NCMI's over the feature components, "
    "that of a method with a head over the classes), so levels of CMI and Γ compare between seeds and "
    "epochs, and only with care between methods."
)
READOUTS = (
    "CC decides by centroid comparison (the class centroid nearest in relative entropy), LP by a linear "
    "probe on frozen features; a method without suffix decides by its own head."
)
ACCURACY = (
    "First panel: test accuracy. Second: difference from {baseline} at the same seed and split. Dots are "
    "seeds, diamonds their mean, bars 95 % t-intervals of the mean over seeds. Because splits are shared, "
    "the second panel is the one to judge by. The intervals are not corrected for there being {count}."
)
CUT_OFF = " With two seeds an interval is wider than the panel: a bar that reaches the edge goes on."
TRAJECTORIES = (
    "Validation data by epoch. Lines are means over seeds, bands run from the lowest to the highest "
    "seed. Point at a name to bring its curve out. "
)
TRAJECTORIES_SINGLE = "Validation data by epoch (the training loss on training data). "
TSNE = (
    "Neighbourhoods of test features ({seed}): t-SNE of the features divided by their length, "
    "perplexity 30 or less. Who lies beside whom is meaningful; sizes of clusters and distances between "
    "them are not. Colour and name: true class. ×: misclassified ({readouts}). {sample}"
)
PCA = (
    "The same features on their two principal components{scale}: here sizes and "
    "distances compare, but a projection only shortens: clusters that lie apart in other directions overlap. "
    "The percentage is the share of the variance that these two components carry. ×: misclassified."
)
CONFUSION = (
    "Confusion matrices on test data{over}. Rows are true classes, columns predicted ones; strength of "
    "colour is the cube root of the share of the row, so that rare errors can be seen, blue for right "
    "and orange for wrong. {counts}"
)
UNFINISHED = (
    "A method with fewer seeds was measured on fewer splits: its mean compares with no other, its difference Δ does."
)
TABLE = (
    "Accuracy: mean ± sample standard deviation over n seeds, in percent of the test set; the highest "
    "mean over all seeds in bold. Δ: mean difference from {baseline} over runs with the same seed and "
    "split, in points, with its 95 % t-interval (coloured where it excludes zero). s/epoch: median "
    "training time of an epoch. MB: highest memory in use. CMI, Γ, NCMI: means over seeds on the "
    "test set. Order: NCMI, then the baseline, then the others by falling accuracy."
)


CALIBRATION = (
    "How far the probabilities can be trusted, on test data; lower is better. NLL: negative log-likelihood in nats; "
    "Brier: mean squared difference of the probabilities from the truth, summed over classes; both reward honest "
    "probabilities, and accuracy with them. ECE: expected calibration error, the mean difference of confidence and "
    "accuracy over 15 bins; it is above 0 by chance alone, the more so the fewer samples there are. /τ: after the "
    "log-probabilities were divided by τ, which is fitted to the validation part and changes no decision (for CC it "
    "is the same as fitting the exponent of the distances). τ above 1: as trained, the probabilities promise too much."
)
CALIBRATION_MEANS = "Means ± sample standard deviation over n seeds; the lowest mean over all seeds in bold."
RELIABILITY = (
    "Reliability on test data. Dots: bins of samples with like confidence, the share of them that is decided rightly "
    "against their mean confidence, with its 95 % Wilson interval; on the dashed line the two agree, below it the "
    "probabilities promise too much. Orange where the interval misses the line. Bars and numbers: samples in a bin."
)
NO_TEMPERATURE = "No τ: this run has no validation part to fit it to."
FOREIGN = (
    "Foreign samples told from the test part by scores that are higher for what is foreign. AUROC: how often a foreign "
    "sample has the higher score of two (50 % is chance). FPR95: share of the foreign samples that pass where 95 % of "
    "the test part do; lower is better."
)
DISTANCES = (
    "Distance to the nearest class centroid, by which CC decides. The dashed line is passed on its left by 95 % of the "
    "test part; foreign samples that lie there are taken for known ones."
)
NO_VALIDATION = (
    "No curves of CMI, Γ, NCMI and accuracy by epoch: these runs trained on all training data, so there is no "
    "validation part to measure them on, and the test part is read only once."
)


def sample_note(sampled: bool, few: Sequence[str] = ()) -> str:
    """A sentence on which points are drawn; ``few`` names the classes where not all are."""
    if not few:
        return f"A random {MOST_POINTS} of the test samples are drawn." if sampled else "All test samples are drawn."
    share = f"A random {MOST_POINTS} of" if sampled else "All"
    return f"{share} the test samples of {len(few)} classes, the first by name, are drawn: {', '.join(few)}."


def sizes(results: Results) -> str:
    """How much data there was, and what it was used for."""
    classes = len(results.class_names)
    start = f"{results.num_train} training, "
    end = f"{results.num_test} test samples in {classes} {'class' if classes == 1 else 'classes'}. "
    paired = "Runs with the same seed share their split, whatever their objective. "
    if not results.num_validation:
        return (
            f"{start}no validation and {end}{paired}"
            "All training data is trained on, so the last epoch is judged; the test part is read once, after training."
        )
    return (
        f"{start}{results.num_validation} validation and {end}{paired}"
        "Every choice is made on the validation part; the test part is read once, after training."
    )
