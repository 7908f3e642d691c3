"""Finished runs judged again, on their own data, on other labeled data, on what they were not trained for.

And the measures of any model's saved outputs.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncmi.data.saved_outputs import read_outputs
from ncmi.errors import naming
from ncmi.loss.checks import SUM_TOLERANCE
from ncmi.loss.forms import FeatureLength
from ncmi.loss.information import InformationAccumulator
from ncmi.loss.simplex import to_log_distribution
from ncmi.readouts.linear_probe import stratified_sample
from ncmi.readouts.out_of_distribution import check_ood_features, compare_ood, ood_scores
from ncmi.readouts.scores import defined
from ncmi.recipes import BagData, Data, SampleData
from ncmi.recipes.names import NOT_THE_TEST_PART, READOUTS
from ncmi.training.defaults import torch_defaults
from ncmi.training.identity import located
from ncmi.training.judging import Features, information, information_of, judge_readouts
from ncmi.training.model import Classifier, load_model
from ncmi.training.run_folder import RunFolder
from ncmi.training.schema import Evaluation, Measured, OutOfDistribution, write_record
from ncmi.training.sources import Source, open_source, other_features
from ncmi.training.streams import KEPT_VALUES, judge_streams, stream_of

Values = Literal["auto", "logits", "probabilities", "log_probabilities", "features"]
_LONGEST_NAME = 80
_MOST_GAPS = 100  # numbers of classes per sample, from where on they are no numbers of classes


@torch_defaults()
@torch.no_grad()
def evaluate_run(
    run: str | Path,
    on: str | Data | Features | None = None,
    ood: Sequence[str] = (),
    labels: str | None = None,
    bad: Literal["error", "skip"] | None = None,
    slide_table: str | None = None,
) -> Evaluation:
    """Judge a finished run by all read-outs, on its own validation and test parts or on other labeled data.

    Args:
        run: the run folder; nothing is written into it.
        on: other labeled data; a name or path is read as the run's own data was; or features of it, made by the run's
            model, with labels that are indices of its classes. Where the run's own data is gone or
            has changed, and ``ood`` does not need it, the read-outs decide as the model file holds them: without kNN,
            for which the training part is needed, and without τ, which the validation part is needed for.
        ood: names or paths of data that the run was not trained for; labels are not looked at.
        labels: table of the labels of ``on``, where that is bags whose files hold none.
        slide_table: table of the slides and patients of ``on``, where ``labels`` has one row a patient.
        bad: what of ``on`` cannot be used: an error, or left out and noted; by default as for the run's own data.

    Raises:
        OSError, ValueError: if the other data has other classes or inputs than the run was trained on, or is the run's
            own; if the run's own data is needed and gone or changed.
    """
    recipe = RunFolder.open(run).recipe()
    model = load_model(run)
    if (labels or slide_table) is not None and not (isinstance(on, str) and isinstance(recipe.data, BagData)):
        raise ValueError(
            "--labels and --slide-table are those of --on, where that is features of slides: leave them out"
        )
    if recipe.data.name in ood:
        raise ValueError(f"{recipe.data.name} is what the run was trained on: give data that it was not trained for")
    parts, notes, outside, streams = {}, [], {}, None
    try:
        source = open_own_source(RunFolder.open(run))
    except (OSError, ValueError) as error:
        if on is None or ood:
            raise
        which = "head, CC and LP" if len(model.judged) > 1 else READOUTS[model.judged[0]]
        notes.append(f"judged by {which} from model.safetensors alone, without kNN and temperature: {error}")
    else:
        outside = {name: source.ood_features(model, name) for name in ood}
        for name, features in outside.items():
            check_ood_features(features, name)
        streams = source.streams(model)
        if streams is None:
            parts = {name: source.features(model, indices) for name, indices in source.parts_to_judge.items()}
        if on is None and (warning := NOT_THE_TEST_PART[source.judged_part]):
            notes.append(warning)
    title, inside = recipe.data.title, parts.get("test")
    if streams is not None and outside:
        # as many as may be kept of them
        most = max(1, KEPT_VALUES // model.objective.feature_dim)
        inside, _ = streams["test"].collect(stratified_sample(streams["test"].labels, most))
    if isinstance(on, Features):
        parts["test"], title = on, "given data"
    elif on is not None:
        data = _like(recipe.data, on) if isinstance(on, str) else on
        if isinstance(data, BagData) and isinstance(on, str):
            data = replace(data, labels=labels, slide_table=slide_table)
        try:
            parts["test"], of_other = other_features(model, data if bad is None else replace(data, bad=bad))
        except ValueError as error:  # here options have no section, and the classes are the run's
            message = str(error).replace("name all classes (--data.classes), or ", "")
            raise ValueError(re.sub(r"--data\.(bad|slide-table|labels)\b", r"--\1", message)) from error
        notes, title = [*notes, *of_other], data.title
    limit, class_names = recipe.training.neighbors_limit, model.signature.class_names
    if streams is None:
        readouts = judge_readouts(model, parts, class_names, limit).readouts
        measures = information(model, parts["test"])
    else:
        if on is not None:
            streams["test"] = stream_of(parts["test"])
        outcome = judge_streams(model, streams, class_names, limit)
        readouts, measures = outcome.judgment.readouts, outcome.information
    if on is not None:  # the validation part is the run's own, not the other data's
        readouts = {name: msgspec.structs.replace(scores, validation=None) for name, scores in readouts.items()}
    return Evaluation(
        kind=recipe.data.kind,
        data=title,
        objective=recipe.objective.name,
        class_names=list(model.signature.class_names),
        primary_readouts=[name for name in model.objective.readouts if name in model.judged],
        readouts=readouts,
        information=measures,
        ood={}
        if inside is None
        else {
            name: _ood(model, inside.features, features, recipe.data.name, name) for name, features in outside.items()
        },
        notes=notes,
    )


def open_own_source(folder: RunFolder) -> Source:
    """The data that a finished run was trained on, from where it then lay.

    Raises:
        RunFolderError: if it is not what it was; the message says what has changed.
    """
    recipe = folder.recipe()
    source = open_source(replace(recipe, data=located(recipe.data, folder)), read=False)
    source.check_unchanged(folder, source.record())
    return source


def _like(data: Data, name: str) -> Data:
    """Other data to be read as a run's own was; what parts it has is of no interest."""
    if isinstance(data, SampleData):
        data = replace(data, test=None, validation=None)
    return replace(data, name=name)


def _ood(model: Classifier, inside: Tensor, outside: Tensor, data: str, name: str) -> OutOfDistribution:
    """How well the model tells the features ``outside [M, D]`` from those of its test part, ``inside [N, D]``."""
    readout = model.objective.readouts[0]
    known, unknown = (
        ood_scores(model.cc, features, model.log_proba(features, readout)) for features in (inside, outside)
    )
    scores, distances = compare_ood(known, unknown)
    return OutOfDistribution(
        data=name,
        inside=data,
        num_inside=len(inside),
        num_outside=len(outside),
        readout=readout,
        scores=scores,
        distances=distances,
    )


def keep_ood(run: str | Path, evaluation: Evaluation) -> list[Path]:
    """Write what an evaluation says of out-of-distribution data into the run folder, as ``ood-NAME.json``."""
    paths = []
    for name, record in evaluation.ood.items():
        # a path becomes a name; of a long one its end
        plain = re.sub(r"[^\w.-]+", "-", name)[-_LONGEST_NAME:].strip("-.") or "data"
        paths.append(RunFolder.open(run).path / f"ood-{plain}.json")
        write_record(paths[-1], record)
    return paths


def measure_file(
    path: str | Path,
    values: Values = "auto",
    temperature: float = 0.5,
    labels_file: str | Path | None = None,
    feature_length: FeatureLength = "own",
) -> Measured:
    """CMI, Γ by both definitions and NCMI of saved outputs ``[N, D]`` and labels ``[N]``.

    Features become distributions by temperature and feature_length, as of :class:`ncmi.NCMILoss`.

    Raises:
        ValueError: if the arrays are missing, damaged or do not fit together; the message names file and cure.
    """
    file = Path(path)
    name, outputs, labels = read_outputs(file, None if labels_file is None else Path(labels_file))
    kind = _kind_of(name, outputs) if values == "auto" else values
    x = torch.from_numpy(np.ascontiguousarray(outputs))
    x = x if x.dtype == torch.float32 else x.double()
    with naming(file if labels_file is None else Path(labels_file)):
        _check_saved_labels(labels, x.shape[1])
    # a class without samples changes nothing, but would take memory
    classes, places = np.unique(labels, return_inverse=True)
    try:
        _check_saved_outputs(x, kind)
        log_p = _log_distributions(x, kind, temperature, feature_length)
        accumulator = InformationAccumulator(len(classes), log_p.shape[1])
        accumulator.update(log_p, torch.from_numpy(places.astype(np.int64)))
    except ValueError as error:
        raise ValueError(f"{file}, array {name!r} taken as {kind}: {error}") from None
    by_class = torch.full((int(labels.max()) + 1,), torch.nan, dtype=torch.float64)
    by_class[torch.from_numpy(classes.astype(np.int64))] = accumulator.compute(synchronize=False).per_class_cmi
    return Measured(
        file=str(file),
        values=kind,
        samples=len(labels),
        information=information_of(accumulator),
        class_cmi=[defined(value) for value in by_class.tolist()],
    )


def _check_saved_labels(labels: NDArray[Any], width: int) -> None:
    """Raise ValueError for labels ``[N]`` that are no numbers of classes; ``width`` is D of the outputs."""
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= _MOST_GAPS * max(len(labels), width, 1000):
        raise ValueError(
            f"labels run from {lowest} to {highest}, of {len(labels)} samples: they must lie in 0 … C − 1, the number "
            "of each class; leave out samples without a class, and number the others anew "
            "(numpy.unique(labels, return_inverse=True)[1])"
        )


def _check_saved_outputs(x: Tensor, kind: str) -> None:
    """Raise ValueError for outputs ``[N, D]`` that are not what they are taken as."""
    usable = x.isfinite() | ((x == -torch.inf) & (kind == "log_probabilities"))
    if bad := int((~usable.all(1)).sum()):
        first = int((~usable.all(1)).nonzero()[0])
        raise ValueError(
            f"{bad} of {len(x)} rows hold NaN or infinity, the first of them row {first} (counted from 0): leave them "
            "out, or check the model that made them"
        )
    if kind in ("probabilities", "log_probabilities"):
        p = x if kind == "probabilities" else x.exp()
        # log-probabilities above 0 are probabilities above 1
        if bool((p < 0).any()) or bool(((p.sum(1) - 1).abs() > SUM_TOLERANCE).any()):
            raise ValueError("rows are no distributions: say what they are by --values logits or --values features")


def _log_distributions(x: Tensor, kind: str, temperature: float, feature_length: FeatureLength) -> Tensor:
    if kind == "features":
        return to_log_distribution(x, None, temperature, feature_length=feature_length)
    if kind == "logits":
        return torch.log_softmax(x, dim=-1)
    return x.log() if kind == "probabilities" else x


def _kind_of(name: str, outputs: Any) -> Values:
    known: dict[str, Values] = {
        "logits": "logits",
        "probabilities": "probabilities",
        "probs": "probabilities",
        "log_probabilities": "log_probabilities",
        "log_p": "log_probabilities",
        "features": "features",
    }
    if name in known:
        return known[name]
    rows = outputs[:1000].astype(np.float64)
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
        return "probabilities"
    if (rows <= 0).all() and np.allclose(np.exp(rows).sum(1), 1, atol=1e-3):
        return "log_probabilities"
    return "logits"
