"""NCMIClassifier: a scikit-learn classifier for those who have arrays. Trains in memory and writes no file."""

from __future__ import annotations

import copy
import inspect
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from ncmi.data.batches import batch_slices, epoch_order, weighted_draws
from ncmi.data.dataset import check_finite
from ncmi.data.load import unseen_in_words
from ncmi.data.signature import Signature
from ncmi.data.standardize import Standardizer
from ncmi.data.tables.load import features_of_frame, read_rows
from ncmi.data.tables.preprocessing import Preprocessing, fit_preprocessing
from ncmi.data.tables.reading import column_names
from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.loss.forms import Anchors, CentroidMode, Direction, Form, check_number, check_whole
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions, objective_options
from ncmi.recipes import Network, Recipe, TableData, Training, resolve_recipe
from ncmi.training.defaults import makes_small_steps, one_thread, torch_defaults
from ncmi.training.model import Classifier
from ncmi.training.optimizers import learning_rate_factor, make_optimizers
from ncmi.training.samples import ViewMaker, features_of, split_views
from ncmi.training.step import TrainingStep
from ncmi.training.tables import with_fitted

_FORM = ("temperature", "centroids", "anchors", "separation_power", "separation_direction", "form", "robustness")
_OPTION = re.compile(r"(?:say )?--data\.([a-z-]+)(?: (-?\d[\d.]*|point|comma|column_1)(?!\w))?")
_BETWEEN = ("ncmi", "contextlib", "sklearn", "joblib")  # packages whose lines say nothing to a caller


class NCMIClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A perceptron trained by NCMI, or by any loss it is compared with, with scikit-learn's interface.

    Columns are standardized with the mean and spread of the training samples. Values are taken as float32: where a
    column's spread is far below its mean (dates in seconds), put a ``StandardScaler`` before it in a ``Pipeline``.

    A data frame (pandas or polars) may hold text, categories, booleans, dates and missing values: its columns are told
    by kind and become numbers as those of a table file do, see :mod:`ncmi.data.tables.preprocessing`. Of a frame that
    holds numbers alone, all columns are numbers. A number that is missing or infinite becomes the median of training.
    Its index is no feature. What a run would note is a ``UserWarning``, one for each call: columns that are left out,
    such as free text, values that could not be read, categories that training had not.

    Args:
        objective: name of a registered objective (``"ncmi"``, ``"cross_entropy"``, …), or its options for more than
            its defaults: ``FocalOptions(gamma=3.0)``.
        readout: what decides. ``"head"``: the objective's own scores; for NCMI the likelihood over the training
            centroids. ``"cc"``: comparison with the true centroids of the training samples. ``"lp"``: a linear probe.
            ``"auto"``: the first that the objective is judged by: ``"cc"`` for NCMI with centroids that are not
            learned, else ``"head"``.
        width, depth: units of a hidden layer, and number of hidden layers; None for the usual.
        feature_dim: D, width of the feature; None for 128, or more where there are more classes.
        epochs, batch_size: passes over the samples, and samples of a step; None for what suits their number.
        learning_rate, weight_decay, centroid_learning_rate: of AdamW; the rates rise and fall once (one cycle).
        temperature, centroids, anchors, separation_power, separation_direction, form, robustness: of
            :class:`ncmi.NCMILoss`; used with ``objective="ncmi"`` alone. ``robustness="auto"`` for labels of which
            many are wrong.
        class_weight: None; ``"balanced"``, n/(C·n_c); or a weight for each class. Objectives with an option
            ``weight`` (``"ncmi"``, ``"cross_entropy"``) weigh their loss by it; for all others, samples are drawn in
            proportion to it. CC compares centroids whatever their classes' weights are, so that ``"auto"`` is
            ``"head"`` with it.
        early_stopping: set a part of the samples aside, stop where the accuracy of the head on it does not rise any
            more, and take the epoch with the best. The learning rate is constant then: it cannot fall towards an end
            that is not known.
        validation_fraction: of the samples to set aside, each class in proportion.
        n_iter_no_change: epochs without a rise after which training stops.
        random_state: of initialization and order; torch's global generators are left as they are.
        device: where it is trained; what is fitted lies on the CPU.
        verbose: print the mean loss of each epoch.

    Attributes:
        classes_: labels ``[C]``, sorted.
        n_features_in_, feature_names_in_: columns of ``X``.
        preprocessing_: how the columns of a data frame became numbers; None where all values were.
        n_iter_: epochs trained; a call of :meth:`partial_fit` is one.
        loss_curve_: mean training loss of each epoch.
        validation_scores_, best_validation_score_: with ``early_stopping``: accuracy after each epoch, and the best.
        feature_dim_: D, as used.
        readout_: ``"head"``, ``"cc"`` or ``"lp"``, as used.
        model_: the trained network with its read-outs, in float64: what is predicted for a sample depends on no other.

    Raises:
        ValueError: by :meth:`fit`, for parameters out of range, a single class, NaN in an array; the message names the
            cure.
        FloatingPointError: by :meth:`fit`, if the loss does not stay finite.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> NCMIClassifier(random_state=0).fit(X, y).score(X, y) > 0.95
        True
    """

    def __init__(
        self,
        *,
        objective: str | ObjectiveOptions = "ncmi",
        readout: Literal["auto", "head", "cc", "lp"] = "auto",
        width: int | None = None,
        depth: int | None = None,
        feature_dim: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = Training.learning_rate,
        centroid_learning_rate: float = Training.centroid_learning_rate,
        weight_decay: float = Training.weight_decay,
        temperature: float = NCMIOptions.temperature,
        centroids: CentroidMode = NCMIOptions.centroids,
        anchors: Anchors = NCMIOptions.anchors,
        separation_power: float | None = NCMIOptions.separation_power,
        separation_direction: Direction = NCMIOptions.separation_direction,
        form: Form = NCMIOptions.form,
        robustness: float | Literal["auto"] = NCMIOptions.robustness,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: int | np.random.RandomState | None = None,
        device: str | torch.device = "cpu",
        verbose: bool = False,
    ) -> None:
        self.objective = objective
        self.readout = readout
        self.width = width
        self.depth = depth
        self.feature_dim = feature_dim
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.centroid_learning_rate = centroid_learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.centroids = centroids
        self.anchors = anchors
        self.separation_power = separation_power
        self.separation_direction = separation_direction
        self.form = form
        self.robustness = robustness
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @torch_defaults()
    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> NCMIClassifier:
        """Train on ``X [N, F]``, an array or a data frame, with labels ``y [N]`` of any type; forgets earlier fits.

        Args:
            X, y: samples and labels.
            sample_weight: ``[N]``, ≥ 0. Samples of weight 0 are left out; of the others as many as there are are drawn
                for each epoch, each floor or ceil of its share of times. The read-outs CC and LP count a sample as so
                many. Columns are standardized without weights.
        """
        # what fails or is interrupted leaves no model of other labels
        for name in ("model_", "_trainer", "preprocessing_", "validation_scores_", "best_validation_score_"):
            self.__dict__.pop(name, None)
        samples, targets, weights = self._checked(X, y, sample_weight, reset=True)
        self.classes_, encoded = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"only one class ({self.classes_[0]!r}): a classifier needs samples of at least two")
        recipe, draws = self._recipe(encoded, samples.shape[1], weights)
        inputs, labels = torch.tensor(samples), torch.from_numpy(encoded.astype(np.int64))
        held_out = None
        if self.early_stopping:
            kept, aside = self._set_aside(encoded, recipe.training.seed)
            held_out = inputs[aside].to(self.device), labels[aside].to(self.device)
            inputs, labels = inputs[kept], labels[kept]
            weights, draws = (None if each is None else each[kept] for each in (weights, draws))
        self._begin()
        with _initialization(recipe.training.seed):
            trainer = _Trainer(
                self._new_model(recipe, inputs), recipe.training, math.ceil(len(inputs) / recipe.training.batch_size)
            )
        model = trainer.model
        counts = torch.bincount(labels, None if weights is None else weights, minlength=len(self.classes_))
        model.objective.set_class_counts(counts.to(self.device))
        self._train(trainer, inputs.to(self.device), labels.to(self.device), draws, held_out)
        model.to("cpu", torch.float64).eval()
        self.readout_ = self._readout(model)
        features = features_of(model, inputs)
        if not bool(features.isfinite().all()):
            raise _diverged("features are not finite", self.n_iter_)
        if self.readout_ == "cc":
            # with the center as it now is
            model.cc = model.objective.centroid_classifier().partial_fit(features, labels, weights)
        elif self.readout_ == "lp":
            model.lp.fit(features, labels, weights)
        self.model_ = model
        return self

    @torch_defaults()
    def partial_fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> NCMIClassifier:
        """Go on from the present model by one epoch over these samples, at a constant learning rate.

        Columns are standardized as by the first call, or the fit before. The head decides, since CC and LP would need
        the samples of all calls.

        Args:
            X, y: samples and labels.
            classes: all labels that there are; needed by the first call.
            sample_weight: as of :meth:`fit`.

        Raises:
            ValueError: for a first call without ``classes``, labels that are not among them, or with
                ``early_stopping``, ``class_weight="balanced"`` or another read-out than the head.
        """
        self._check_partial()
        first = "model_" not in self.__dict__
        samples, targets, weights = self._checked(X, y, sample_weight, reset=first)
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit: classes=numpy.unique(y)")
            self.classes_ = np.unique(np.asarray(classes))
            if len(self.classes_) < 2:
                raise ValueError(f"only one class ({self.classes_[0]!r}): a classifier needs at least two")
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise ValueError("classes are not those of the first call: leave them out, or call fit to begin anew")
        known = np.isin(targets, self.classes_)
        if not known.all():
            raise ValueError(f"label {targets[~known][0]} is not in classes: name all classes in the first call")
        encoded = np.searchsorted(self.classes_, targets)
        inputs, labels = torch.tensor(samples), torch.from_numpy(encoded.astype(np.int64))
        recipe, draws = self._recipe(encoded, samples.shape[1], weights)
        training = replace(recipe.training, schedule="constant")
        if first:
            self._begin()
            with _initialization(training.seed):
                self._trainer = _Trainer(self._new_model(recipe, inputs), training)
        elif "_trainer" not in self.__dict__:
            self._trainer = _Trainer(self.model_.to(self.device, torch.float32), training)
        self.__dict__.pop("model_", None)
        model = self._trainer.model.to(self.device, torch.float32)
        self._train(self._trainer, inputs.to(self.device), labels.to(self.device), draws, None, epochs=1)
        self.readout_ = "head"
        self.model_ = model.to("cpu", torch.float64).eval()
        return self

    def _begin(self) -> None:
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []

    def _check_partial(self) -> None:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: it has no end to come to")
        if isinstance(self.class_weight, str):
            raise ValueError("class_weight='balanced' needs all samples: give partial_fit a weight for each class")
        if self.readout not in ("auto", "head"):
            raise ValueError(f"readout={self.readout!r} needs all samples: use partial_fit with readout='head'")

    def _checked(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None, *, reset: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], Tensor | None]:
        """Samples, labels and weights, without those of weight 0; no weights where all are alike."""
        samples, targets = self._samples_and_targets(X, y, reset=reset)
        check_classification_targets(targets)
        if sample_weight is None:
            return samples, targets, None
        weights = _check_sample_weight(sample_weight, samples, dtype=np.float64, ensure_non_negative=True)
        kept = weights > 0
        if not kept.any():
            raise ValueError("sample_weight is 0 for all samples: give weights above 0")
        samples, targets, weights = samples[kept], targets[kept], weights[kept]
        return samples, targets, None if (weights == weights[0]).all() else torch.from_numpy(weights)

    def _set_aside(self, encoded: npt.NDArray[Any], seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Indices to train on, and to validate by."""
        counts = np.bincount(encoded)
        if counts.min() < 2:
            raise ValueError(
                f"class {self.classes_[counts.argmin()]!r} has one sample, of which early_stopping=True can set none "
                "aside: give it more samples, or early_stopping=False"
            )
        aside_count = math.ceil(self.validation_fraction * len(encoded))
        if not len(counts) <= aside_count <= len(encoded) - len(counts):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} sets {aside_count} of {len(encoded)} samples aside, "
                f"but each of the {len(counts)} classes needs one aside and one to train on: choose another fraction, "
                "or early_stopping=False"
            )
        kept, aside = train_test_split(
            np.arange(len(encoded)), test_size=self.validation_fraction, stratify=encoded, random_state=seed
        )
        return kept, aside

    def _new_model(self, recipe: Recipe, inputs: Tensor) -> Classifier:
        names = tuple(map(str, self.classes_))
        model = Classifier(recipe, Signature(kind="table", sample_shape=(inputs.shape[1],), class_names=names))
        standardizer = Standardizer.fit(inputs, "table")
        if self.preprocessing_ is not None:
            standardizer.leave_out(self.preprocessing_.is_flag)
        model.standardize.load_state_dict(standardizer.state_dict())
        self.feature_dim_ = model.objective.feature_dim
        return model.to(self.device)

    def _train(
        self,
        trainer: _Trainer,
        inputs: Tensor,
        labels: Tensor,
        draws: Tensor | None,
        held_out: tuple[Tensor, Tensor] | None,
        epochs: int | None = None,
    ) -> None:
        """Train in place, by default for all epochs; with samples held out, up to the best by them."""
        best, best_epoch = None, 0
        if held_out is not None:
            self.validation_scores_, self.best_validation_score_ = [], -math.inf
        for epoch in range(epochs or trainer.training.epochs):
            loss = trainer.epoch(inputs, labels, draws, self.n_iter_)
            self.n_iter_ += 1
            self.loss_curve_.append(loss)
            if self.verbose:
                print(f"epoch {self.n_iter_}{'' if epochs else f'/{trainer.training.epochs}'}: loss {loss:.4g}")
            if held_out is None:
                continue
            self.validation_scores_.append(trainer.accuracy(*held_out))
            if self.validation_scores_[-1] > self.best_validation_score_:
                self.best_validation_score_ = self.validation_scores_[-1]
                best, best_epoch = copy.deepcopy(trainer.model.state_dict()), epoch
            elif epoch - best_epoch >= self.n_iter_no_change:
                break
        if best is not None:
            trainer.model.load_state_dict(best)

    def _samples_and_targets(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *, reset: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
        if not reset:
            targets = column_or_1d(y, warn=True)
            check_consistent_length(X, targets)
            return self._samples(X), targets
        self.preprocessing_: Preprocessing | None = None
        self._medians: npt.NDArray[np.float32] | None = None
        if _is_mixed(X):
            validate_data(self, X, skip_check_array=True)
            targets = column_or_1d(y, warn=True)
            check_consistent_length(X, targets)
            with _words_of_frames():
                return self._fit_preprocessing(_as_pandas(X)), targets
        samples, targets = self._validated(X, y=y)
        if _is_frame(X):
            self._medians = np.median(samples, axis=0)
        return samples, targets

    def _fit_preprocessing(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Numbers ``[N, F]`` of the training samples."""
        # whether some value is missing must not decide which columns count
        numbers: list[str] = []
        if all(map(_is_real, frame.dtypes)):
            names = zip(column_names(frame), frame.dtypes, strict=True)
            numbers = [name for name, kind in names if not is_bool_dtype(kind)]
        columns, rows, notes = features_of_frame(frame, TableData("frame", numeric=tuple(numbers)))
        if not columns:
            raise ValueError(f"no column of the frame can be used: {'; '.join(notes)}")
        self.preprocessing_ = fit_preprocessing(rows, columns, len(rows))
        _warn(with_fitted(notes, self.preprocessing_))
        return _finite(self.preprocessing_, rows)

    def _samples(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Numbers ``[N, F]`` of further samples, as of those of the first call."""
        if self.preprocessing_ is not None:
            validate_data(self, X, reset=False, skip_check_array=True)
            with _words_of_frames():
                read = read_rows(X, self.preprocessing_.columns, TableData("frame"), label_column="")
                _warn((*read.notes, *unseen_in_words(self.preprocessing_, read.rows.frame)))
                return _finite(self.preprocessing_, read.rows.frame)
        if self._medians is None or not _is_frame(X):
            return np.asarray(self._validated(X, reset=False))
        values = validate_data(self, X, dtype=np.float64, order="C", ensure_all_finite=False, reset=False)
        names = column_names(_as_pandas(X))
        counts = zip(names, np.isinf(values).sum(axis=0).tolist(), strict=True)
        _warn([f"{count} values of {name!r} are infinite: taken as missing" for name, count in counts if count])
        with np.errstate(over="ignore"):  # what overflows is infinite, and so an error
            samples = np.where(np.isfinite(values), values, self._medians).astype(np.float32)
        check_finite(torch.from_numpy(samples), names)
        return samples

    def _validated(self, X: npt.ArrayLike, **options: Any) -> Any:
        with np.errstate(over="ignore"):  # what overflows is infinite, and so an error
            return validate_data(self, X, dtype=np.float32, order="C", **options)

    def _recipe(
        self, encoded: npt.NDArray[Any], columns: int, sample_weight: Tensor | None
    ) -> tuple[Recipe, Tensor | None]:
        """How it is trained; and weights ``[N]`` to draw samples by, their own and the classes' that the loss lacks."""
        for name, least in (("width", 1), ("depth", 1), ("feature_dim", 2), ("epochs", 1), ("batch_size", 1)):
            if (value := getattr(self, name)) is not None:
                check_whole(**{name: value})
                if value < least:
                    raise ValueError(f"{name}={value}: must be at least {least}, or None")
        check_number("validation_fraction", self.validation_fraction)
        check_whole(n_iter_no_change=self.n_iter_no_change)
        if self.readout not in ("auto", "head", "cc", "lp"):
            raise ValueError(f"unknown readout {self.readout!r}: use 'auto', 'head', 'cc' or 'lp'")
        if not 0 < self.validation_fraction < 1 or self.n_iter_no_change < 1:
            raise ValueError(
                f"validation_fraction={self.validation_fraction}, n_iter_no_change={self.n_iter_no_change}: "
                "must be between 0 and 1, and at least 1"
            )
        training = Training(
            epochs=self.epochs or 0,
            batch_size=self.batch_size or 0,
            learning_rate=self.learning_rate,
            centroid_learning_rate=self.centroid_learning_rate,
            weight_decay=self.weight_decay,
            schedule="constant" if self.early_stopping else Training.schedule,
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
        )
        network = Network("mlp", width=self.width or 0, depth=self.depth or 0, feature_dim=self.feature_dim or 0)
        options = self._objective_options()
        of_classes, draws = self._weights_of_classes(encoded, sample_weight), sample_weight
        if of_classes is not None and _takes_weights(options):
            options = replace(options, **{"weight": tuple(of_classes.tolist())})
        elif of_classes is not None:
            draws = of_classes[torch.from_numpy(encoded)] * (1.0 if sample_weight is None else sample_weight)
        recipe = Recipe(TableData("arrays"), network, options, training)
        return resolve_recipe(recipe, (columns,), len(self.classes_), len(encoded)), draws

    def _objective_options(self) -> ObjectiveOptions:
        if self.objective == "ncmi":
            return NCMIOptions(**{name: getattr(self, name) for name in _FORM})
        if isinstance(self.objective, ObjectiveOptions):
            return self.objective
        try:
            return objective_options(str(self.objective))()
        except KeyError as error:
            raise ValueError(error.args[0]) from None

    def _weights_of_classes(self, encoded: npt.NDArray[Any], sample_weight: Tensor | None) -> Tensor | None:
        """``[C]``, or None where there are none."""
        if self.class_weight is None:
            return None
        if self.class_weight == "balanced" and sample_weight is not None:
            counts = np.bincount(encoded, sample_weight.numpy())
            weights = counts.sum() / (len(counts) * counts)
        else:
            weights = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[encoded])
        if not (weights > 0).all():
            raise ValueError(f"class_weight={self.class_weight}: give weights above 0, or leave a class out of X")
        return torch.from_numpy(np.asarray(weights, dtype=np.float64))

    def _readout(self, model: Classifier) -> str:
        if self.readout != "auto":
            return self.readout
        return "head" if self.class_weight is not None else model.objective.readouts[0]

    @torch_defaults()
    def predict_log_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Log-probabilities ``[N, C]``, columns in the order of ``classes_``."""
        check_is_fitted(self, "model_")
        features = features_of(self.model_, torch.tensor(self._samples(X)))
        return np.asarray(self.model_.log_proba(features, self.readout_))

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probabilities ``[N, C]``, columns in the order of ``classes_``."""
        return np.asarray(np.exp(self.predict_log_proba(X)))

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Log-probabilities ``[N, C]``; for two classes the log-odds ``[N]`` of ``classes_[1]``."""
        log_p = self.predict_log_proba(X)
        return log_p[:, 1] - log_p[:, 0] if log_p.shape[1] == 2 else log_p

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The most probable label of each sample, ``[N]``."""
        log_p = self.predict_log_proba(X)
        return np.asarray(self.classes_[log_p.argmax(axis=1)])


class _Trainer:
    """Network and optimizers between epochs."""

    def __init__(self, model: Classifier, training: Training, steps_per_epoch: int = 1) -> None:
        self.model, self.training, self.steps = model, training, 0
        optimizer = AlternatingOptimizer(*make_optimizers(model, training), training.alternation)
        schedulers = []
        if training.schedule != "constant":  # a schedule cannot be pickled
            factor = learning_rate_factor(training, steps_per_epoch)
            schedulers = [LambdaLR(each, factor) for each in optimizer.optimizers]
        self.step = TrainingStep(model.objective, optimizer, schedulers=schedulers)
        self.views = ViewMaker(training.augmentation, "table", model.objective.views, training.seed)

    def epoch(self, inputs: Tensor, labels: Tensor, weights: Tensor | None, number: int) -> float:
        """Train in place on samples drawn by their weights, or on each once; gives the mean loss."""
        model, objective, seed = self.model.train(), self.model.objective, self.training.seed
        order = epoch_order(len(inputs), seed=seed, epoch=number)
        if weights is not None:
            order = weighted_draws(weights, seed=seed, epoch=number)[order]
        order = order.to(inputs.device)
        total = torch.zeros((), device=inputs.device)
        with one_thread(makes_small_steps("mlp", self.training, inputs.device)):
            for place, rows in enumerate(batch_slices(len(inputs), self.training.batch_size)):
                batch = order[rows]
                varied = self.views(inputs[batch], slice(None), model.standardize, torch.float32, (number, place, 0))
                features = split_views(model.network(varied), objective.views)
                loss = self.step(features, labels[batch], step=self.steps, epoch=number)
                total += loss * len(batch)
                self.steps += 1
        mean = total.item() / len(inputs)
        if not math.isfinite(mean):
            raise _diverged(f"the loss is {mean}", number + 1)
        return mean

    def accuracy(self, inputs: Tensor, labels: Tensor) -> float:
        """Share of samples that the head decides rightly."""
        features = features_of(self.model.eval(), inputs)
        return float((self.model.log_proba(features, "head").argmax(1) == labels).double().mean())


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def _as_pandas(frame: Any) -> pd.DataFrame:
    return frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()


def _is_real(kind: Any) -> bool:
    return is_numeric_dtype(kind) and not is_complex_dtype(kind)


def _is_mixed(X: Any) -> bool:
    """Whether it is a data frame that holds more than finite numbers."""
    if not _is_frame(X):
        return False
    frame = _as_pandas(X)
    if not all(map(_is_real, frame.dtypes)):
        return True
    return not np.isfinite(frame.to_numpy(np.float64, na_value=np.nan)).all()


def _finite(preprocessing: Preprocessing, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    features = preprocessing.transform(rows)
    check_finite(features, preprocessing.feature_names)
    return np.asarray(features)


@contextmanager
def _words_of_frames() -> Iterator[None]:
    """Inside it errors name cures that a frame has, in place of options that this estimator has not."""
    try:
        yield
    except ValueError as error:
        raise ValueError(_in_words_of_frames(str(error))) from error


def _in_words_of_frames(text: str) -> str:
    """A text in which options of the command line are what does the same to a frame.

    Example:
        >>> _in_words_of_frames("a mark of missing ones, say --data.missing -999")
        'a mark of missing ones, use X.replace(-999, numpy.nan)'
    """

    def cure(option: re.Match[str]) -> str:
        cures = {
            "missing": f"X.replace({option[2] or 'MARK'}, numpy.nan)",
            "categorical": "astype('category')",
            "numeric": "pandas.to_numeric",
            "decimal": "pandas.to_numeric",
            "split-column": "X.loc to select rows",
            "drop": "X.drop(columns=…)",
            "id-column": "X.drop(columns=…)",
        }
        use = cures.get(option[1], "a column of another type")
        return f"use {use}" if option[0].startswith("say") else use

    return _OPTION.sub(cure, text)


def _warn(notes: Sequence[str]) -> None:
    """One warning of all notes, at the line that has called the estimator, or scikit-learn's tools with it."""
    if not notes:
        return
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(f"columns of the frame: {_in_words_of_frames('; '.join(notes))}", UserWarning, stacklevel=level)


@contextmanager
def _initialization(seed: int) -> Iterator[None]:
    """Initialization draws from the CPU's global generator alone; torch.manual_seed would reseed other devices too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _takes_weights(options: ObjectiveOptions) -> bool:
    return any(field.name == "weight" for field in fields(options))


def _diverged(what: str, epoch: int) -> FloatingPointError:
    return FloatingPointError(f"{what} in epoch {epoch}: lower learning_rate")
