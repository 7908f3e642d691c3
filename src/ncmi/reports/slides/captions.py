"""What stands under tables and figures of slides, and that a simulation is called one under every one of them."""

from __future__ import annotations

from collections.abc import Sequence

from ncmi.reports import elements as e
from ncmi.reports.figures.svg import Panel

SIMULATED = "Simulation, no real slides. "
SCORES = (
    "Macro F1: mean of the classes' F1, each class counting the same. AUC: area under the ROC curve, mean over classes "
    "of one against the rest (0.5 is chance; of two classes, that of the second). Balanced accuracy: mean recall. All "
    "in 0 … 1, higher is better."
)
INTERVALS = (
    "In brackets or below: {percent} interval from {count} resamples of patients, with all slides of a patient; only "
    "resamples in which every class occurs. It says how far another sample of patients might lie, not another seed."
)
READOUTS = (
    "CC decides by the class centroid nearest in relative entropy, LP by a linear probe on frozen slide vectors; a "
    "method without suffix decides by its own head. Primary: the read-outs by which the objective is judged."
)
RECALL = (
    "Recall on test data: share of each class's slides that is recognised. Bars: {percent} intervals over patients."
)
CONFUSION = (
    "Confusion on test data. Rows are true classes, columns decisions; strength of colour is the cube root of the "
    "share of the row, so that rare errors can be seen, blue for right and orange for wrong. Numbers are slides."
)
ROC = (
    "ROC curves on test data, each class against all others{of}. On the dashed line a model knows nothing. Steps are "
    "slides: a class with few of them has few steps."
)
CURVES = (
    "Epoch by epoch: losses, and the head's scores on validation data. {best}Losses of different objectives do not "
    "compare; the NLL of the head does."
)
BEST = "Dashed: epoch {epoch}, which was kept, chosen on validation data alone. "
HEAT = "{slide}: {what}. Numbers: its patches of highest attention, the highest first."
PATCHES = "{slide}: the same patches, as the slide shows them, and how many times an even share each of them has."
CHOSEN = (
    "These slides were chosen by the training, not by eye. Attention is a patch's weight in the sum that makes the "
    "slide's vector; over a slide it adds up to 1. It says where the vector comes from, not where tumour is. Colour is "
    "attention relative to an even share, 1/N for N patches, on a logarithmic scale; below 0.1× all patches have one "
    "colour. “Spread like n patches”: n is the exponential of the attention's entropy."
)


TABLE_3 = (
    "Test data: macro F1, below it AUC, mean ± sample standard deviation over {repeats}; the highest means of a "
    "network in bold, where all its methods have the same repeats. Macro F1 and AUC are means over classes, each class "
    "counting the same."
)
FOLDS = (
    "Repeats of a {folds}-fold cross-validation by patient: the test parts of all folds of a repeat are put together, "
    "so that every slide is decided once, by a model that did not see its patient, and scores are computed once for "
    "all of them. Mean and standard deviation are over repeats, never over folds. AUC compares probabilities of "
    "different folds' models with each other; fold by fold it is in the table below."
)
PUBLISHED = (
    "Published: the paper's own figures ({source}), printed without a spread, with its features, its split and its "
    "form of NCMI; they stand beside what was measured here and enter no mean, difference or figure of this page."
)
DIFFERENCES = (
    "Differences from {baseline} of the same network at the same seed, split and test slides. Over {unit}: 95 % "
    "t-interval of the mean (coloured where it excludes zero): would another {one} give the same? It knows nothing of "
    "other patients. Over patients: 95 % bootstrap interval of the same mean: would other patients give the same? p: "
    "Wilcoxon's signed-rank test over {unit}, from five pairs on."
)
NO_PATIENTS = " No interval over patients where repeats test on different slides."
DOTS = (
    "Left: score on test data. Right: difference from {baseline} of the same network, seed and split. Dots are {unit}, "
    "diamonds their mean, bars 95 % t-intervals of the mean; one that reaches the edge goes on. The right panels are "
    "the ones to judge by."
)
FOLD_BY_FOLD = (
    "Every fold judged for itself: mean ± sample standard deviation over all folds of all repeats, and the number of "
    "folds in which the score is defined. A fold has few slides, so these vary more than the pooled scores above."
)
COST = "Median training time of an epoch, and the highest memory in use, over all runs."


class Figures:
    """Numbers the figures of a page, and names a simulation in every caption."""

    def __init__(self, simulation: bool) -> None:
        self.simulation = simulation
        self._number = 0

    def figure(self, caption: str, panels: Sequence[Panel], *, kind: str = "", legend: str = "") -> str:
        """The next figure; see :func:`ncmi.reports.elements.figure`."""
        self._number += 1
        return e.figure(self._number, self.caption(caption), panels, kind=kind, legend=legend)

    def caption(self, words: str) -> str:
        """The words, after the word simulation where it is one."""
        return SIMULATED + words if self.simulation else words

    def note(self, words: str) -> str:
        """A caption of a table."""
        return e.paragraph(self.caption(words), "note")
