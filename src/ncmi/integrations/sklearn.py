"""NCMIClassifier: a scikit-learn classifier for those who have arrays. Trains in memory and writes no file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from ncmi.data.batches import batch_slices, epoch_order
from ncmi.data.standardize import Standardizer
from ncmi.loss.alternating import AlternatingOptimizer
from ncmi.loss.forms import Anchors, CentroidMode, Direction, Form
from ncmi.objectives.options import NCMIOptions, ObjectiveOptions, objective_names, objective_options
from ncmi.recipes import Network, Recipe, TableData, Training, resolve_recipe
from ncmi.training.model import Classifier
from ncmi.training.optimizers import learning_rate_factor, make_optimizers
from ncmi.training.samples import ViewMaker, features_of, split_views
from ncmi.training.schema import Signature
from ncmi.training.step import TrainingStep

_FORM = ("temperature", "centroids", "anchors", "separation_power", "separation_direction", "form", "robustness")


class NCMIClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A perceptron trained by NCMI, or by any loss it is compared with, with scikit-learn's interface.

    Columns are standardized with the mean and spread of the training samples. Values are taken as float32: where a
    column's spread is far below its mean (dates in seconds), put a ``StandardScaler`` before it in a ``Pipeline``.

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
        class_weight: None; ``"balanced"``, n/(C·n_c); or a weight for each class; with objectives that have
            ``weight`` (``"ncmi"``, ``"cross_entropy"``). It weighs the training loss. CC compares centroids
            whatever their classes' weights are, so that ``"auto"`` is ``"head"`` with it.
        random_state: of initialization and order; torch's global generators are left as they are.
        device: where it is trained; what is fitted lies on the CPU.
        verbose: print the mean loss of each epoch.

    Attributes:
        classes_: labels ``[C]``, sorted.
        n_features_in_, feature_names_in_: columns of ``X``.
        n_iter_: epochs trained.
        loss_curve_: mean training loss of each epoch.
        feature_dim_: D, as used.
        readout_: ``"head"``, ``"cc"`` or ``"lp"``, as used.
        model_: the trained network with its read-outs, in float64: what is predicted for a sample depends on no other.

    Raises:
        ValueError: by :meth:`fit`, for parameters out of range, a single class, NaN; the message names the cure.
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
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> NCMIClassifier:
        """Train on ``X [N, F]``, an array or a data frame, with labels ``y [N]`` of any type; forgets earlier fits."""
        self.__dict__.pop("model_", None)  # what fails or is interrupted leaves no model of other labels
        samples, targets = self._validated(X, y=y)
        check_classification_targets(targets)
        self.classes_, encoded = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"only one class ({self.classes_[0]!r}): a classifier needs samples of at least two")
        inputs, labels = torch.tensor(samples), torch.from_numpy(encoded.astype(np.int64))
        recipe = self._recipe(targets, inputs.shape[1])
        training = recipe.training
        # initialization draws from the CPU's global generator alone; torch.manual_seed would reseed other devices too
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            names = tuple(map(str, self.classes_))
            model = Classifier(recipe, Signature(kind="table", sample_shape=(inputs.shape[1],), class_names=names))
            model.standardize.load_state_dict(Standardizer.fit(inputs, "table").state_dict())
            model.to(self.device)
            self.loss_curve_ = []
            for loss in _epochs(model, inputs.to(self.device), labels.to(self.device), training):
                self.loss_curve_.append(loss)
                if self.verbose:
                    print(f"epoch {len(self.loss_curve_)}/{training.epochs}: loss {loss:.4g}")
        self.n_iter_ = training.epochs
        self.feature_dim_ = model.objective.feature_dim
        model.to("cpu", torch.float64).eval()
        self.readout_ = self._readout(model)
        features = features_of(model, inputs)
        if not bool(features.isfinite().all()):
            raise _diverged("features are not finite", self.n_iter_)
        if self.readout_ == "cc":
            # with the center as it now is
            model.cc = model.objective.centroid_classifier().partial_fit(features, labels)
        elif self.readout_ == "lp":
            model.lp.fit(features, labels)
        self.model_ = model
        return self

    def _validated(self, X: npt.ArrayLike, **options: Any) -> Any:
        with np.errstate(over="ignore"):  # what overflows is infinite, and so an error
            return validate_data(self, X, dtype=np.float32, order="C", **options)

    def _recipe(self, y: npt.NDArray[Any], columns: int) -> Recipe:
        for name, least in (("width", 1), ("depth", 1), ("feature_dim", 2), ("epochs", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: must be at least {least}, or None")
        if self.readout not in ("auto", "head", "cc", "lp"):
            raise ValueError(f"unknown readout {self.readout!r}: use 'auto', 'head', 'cc' or 'lp'")
        training = Training(
            epochs=self.epochs or 0,
            batch_size=self.batch_size or 0,
            learning_rate=self.learning_rate,
            centroid_learning_rate=self.centroid_learning_rate,
            weight_decay=self.weight_decay,
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
        )
        network = Network("mlp", width=self.width or 0, depth=self.depth or 0, feature_dim=self.feature_dim or 0)
        recipe = Recipe(TableData("arrays"), network, self._weighted(self._objective_options(), y), training)
        return resolve_recipe(recipe, (columns,), len(self.classes_), len(y))

    def _objective_options(self) -> ObjectiveOptions:
        if self.objective == "ncmi":
            return NCMIOptions(**{name: getattr(self, name) for name in _FORM})
        if isinstance(self.objective, ObjectiveOptions):
            return self.objective
        try:
            return objective_options(str(self.objective))()
        except KeyError as error:
            raise ValueError(error.args[0]) from None

    def _weighted(self, options: ObjectiveOptions, y: npt.NDArray[Any]) -> ObjectiveOptions:
        """The options with the weights of the classes, where there are any."""
        if self.class_weight is None:
            return options
        if not _takes_weights(type(options)):
            able = " or ".join(repr(name) for name in objective_names() if _takes_weights(objective_options(name)))
            raise ValueError(f"class_weight is for the objectives {able}, not {self.objective!r}: leave it out")
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        if not (weights > 0).all():
            raise ValueError(f"class_weight={self.class_weight}: give weights above 0, or leave a class out of X")
        return replace(options, **{"weight": tuple(weights.tolist())})

    def _readout(self, model: Classifier) -> str:
        if self.readout != "auto":
            return self.readout
        return "head" if self.class_weight is not None else model.objective.readouts[0]

    def predict_log_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Log-probabilities ``[N, C]``, columns in the order of ``classes_``."""
        check_is_fitted(self, "model_")
        features = features_of(self.model_, torch.tensor(self._validated(X, reset=False)))
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


def _epochs(model: Classifier, inputs: Tensor, labels: Tensor, training: Training) -> Iterator[float]:
    """Train in place; gives each epoch's mean loss."""
    objective = model.objective
    objective.set_class_counts(torch.bincount(labels, minlength=objective.num_classes))
    optimizer = AlternatingOptimizer(*make_optimizers(model, training), training.alternation)
    slices = batch_slices(len(inputs), training.batch_size)
    factor = learning_rate_factor(training, len(slices))
    step = TrainingStep(objective, optimizer, schedulers=[LambdaLR(each, factor) for each in optimizer.optimizers])
    views = ViewMaker(training.augmentation, "table", objective.views, training.seed)
    model.train()
    for epoch in range(training.epochs):
        order = epoch_order(len(inputs), seed=training.seed, epoch=epoch).to(inputs.device)
        total = torch.zeros((), device=inputs.device)
        for number, rows in enumerate(slices):
            batch = order[rows]
            varied = views(inputs[batch], slice(None), model.standardize, torch.float32, (epoch, number, 0))
            features = split_views(model.network(varied), objective.views)
            loss = step(features, labels[batch], step=epoch * len(slices) + number, epoch=epoch)
            total += loss * len(batch)
        mean = total.item() / len(inputs)
        if not math.isfinite(mean):
            raise _diverged(f"the loss is {mean}", epoch + 1)
        yield mean


def _takes_weights(options: type[ObjectiveOptions]) -> bool:
    return any(field.name == "weight" for field in fields(options))


def _diverged(what: str, epoch: int) -> FloatingPointError:
    return FloatingPointError(f"{what} in epoch {epoch}: lower learning_rate")
