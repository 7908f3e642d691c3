"""A finished run as one file that other programs run: ONNX, or a program of torch.export.

Preprocessing, network, read-out, temperature and class names are inside; what goes in is what the data looks like:

- images: ``inputs`` ``[N, channels, H, W]`` uint8, of the run's size;
- arrays: ``inputs`` ``[N, F]`` float32;
- tables, in ONNX: one input ``[N, 1]`` a column, called like it. Numbers are float32 (float64 where their values differ
  by less than float32 resolves), NaN where missing; categories and yes-or-no columns are strings without blanks around,
  empty where missing; of a date each part that counts is a number ("signup year");
- tables, in a program of torch, which has no strings: ``inputs`` ``[N, K]`` float32 or float64, numbers with NaN where
  missing, then a 0 or 1 for each category, as the names in ``ncmi.json`` inside the file say;
- bags: ``inputs`` ``[N, D]`` float32, the instances of one bag, however many.

What comes out: ``probabilities`` ``[N, C]`` float32, in ONNX also ``label`` ``[N]``, strings, and of bags (N = 1)
``attention`` over the instances. The metadata of the file says all of that.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import ncmi
from ncmi.data.tables.dialect import MISSING_MARKS
from ncmi.data.tables.preprocessing import MISSING, Preprocessing
from ncmi.data.tables.table import TableColumn
from ncmi.errors import reason
from ncmi.files import check_writable, write_atomically
from ncmi.recipes import TableData
from ncmi.recipes.names import network_label
from ncmi.training.defaults import torch_defaults
from ncmi.training.model import Classifier
from ncmi.training.prediction import Predictor

if TYPE_CHECKING:
    import pandas as pd

To = Literal["onnx", "torch"]
ENDINGS: dict[To, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "ncmi.json"
"""File inside a program of torch that says what goes in and comes out."""
Outcome = Callable[[dict[str, Any]], npt.NDArray[Any]]
"""What a file makes of its inputs, by name: probabilities."""
_TOLERANCE = 1e-4  # of probabilities: float32 in another order of sums
_SIZES = (17, 1, 2)  # samples, or instances, of what the file is tried on
_OUTPUTS = ("label", "probabilities", "attention")
_SAID = 200  # signs of a library's complaint


class ExportError(ValueError):
    """A run cannot be exported; the message says why."""


@dataclass(frozen=True)
class Exported:
    """A file that has been written, and tried.

    Attributes:
        path: the file.
        metadata: what is said inside it: classes, inputs, outputs, read-out, temperature, …
        error: largest difference of a probability from the run's own, over what it was tried on.
    """

    path: Path
    metadata: dict[str, Any]
    error: float


@torch_defaults()
def export_run(
    predictor: Predictor,
    to: To,
    path: Path,
    *,
    readout: str = "auto",
    calibrated: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a finished run as one file, once it has been run beside the run itself on made-up samples and agrees.

    Args:
        predictor: the run.
        to: "onnx" or "torch".
        path: the file.
        readout: "head", "cc" or "lp"; by default the objective's own first one.
        calibrated: probabilities by the temperature τ that was fitted to the validation part.
        overwrite: replace an existing file.

    Raises:
        ExportError: for nearest neighbors, a network that cannot be exported, columns that clash, or where the file
            disagrees with the run. Nothing is written then.
        FileExistsError: if the file exists and may not be replaced.
        ModuleNotFoundError: for ONNX without the extra ``export``.
    """
    name = predictor.readout(readout)
    if name == "knn":
        raise ExportError(
            "nearest neighbors need the training data, which no file holds: give --readout head, cc or lp"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another --out, or give --overwrite")
    if to == "onnx":
        _need("onnx", "onnxscript", "onnxruntime")
    temperature = predictor.temperature(name) if calibrated else 1.0
    check_writable(path)
    graph = Deployed(predictor.model, name, temperature).eval()
    columns = None if to == "torch" else predictor.signature.preprocessing
    metadata = _metadata(predictor, name, temperature if calibrated else None, columns)
    program = _program(graph, predictor)
    errors: list[float] = []

    def write(temporary: Path) -> None:
        if to == "onnx":
            _write_onnx(temporary, program, columns, metadata)
            outcome = _onnx_probabilities(temporary)
        else:
            with _quiet():
                torch.export.save(program, str(temporary), extra_files={METADATA: json.dumps(metadata)})
            outcome = _torch_probabilities(temporary)
        for size in _SIZES:
            errors.append(_difference(predictor, name, calibrated, outcome, columns, size))
        if not max(errors) <= _TOLERANCE:
            raise ExportError(
                f"the exported network's probabilities differ from the run's by up to {max(errors):.2g}: nothing is "
                "written; another --to, or another --readout, may do"
            )

    write_atomically(path, write)
    return Exported(path, metadata, max(errors))


def _need(*packages: str) -> None:
    """See that packages are there before any work is done."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            message = f"{package} is not installed, which ONNX needs: pip install 'ncmi[export]'"
            raise ModuleNotFoundError(message, name=package) from error


class Deployed(nn.Module):
    """From raw inputs to probabilities ``[N, C]``, and of a bag its attention ``[N]``.

    Args:
        model: in evaluation mode.
        readout: "head", "cc" or "lp".
        temperature: that log-probabilities are divided by.
    """

    fill: Tensor
    shift: Tensor
    indicated: Tensor

    def __init__(self, model: Classifier, readout: str, temperature: float) -> None:
        super().__init__()
        self.model, self.readout, self.temperature = model, readout, temperature
        preprocessing = model.signature.preprocessing
        numbers = () if preprocessing is None else preprocessing.numbers
        self.numbers = len(numbers)
        self.is_shifted = preprocessing is not None and preprocessing.is_shifted
        shift = torch.tensor([number.shift for number in numbers], dtype=torch.float64)
        fill = torch.tensor([number.fill for number in numbers], dtype=torch.float64)
        self.register_buffer("fill", (fill - shift).float())
        self.register_buffer("shift", shift)
        indicated = [place for place, number in enumerate(numbers) if number.indicator]
        self.register_buffer("indicated", torch.tensor(indicated, dtype=torch.long))

    def encode(self, inputs: Tensor) -> Tensor:
        """Features ``[N, F]`` of numbers, NaN where missing, and flags ``[N, K]``: what preprocessing makes of them."""
        numbers, flags = inputs[:, : self.numbers], inputs[:, self.numbers :]
        if self.is_shifted:  # in float64
            numbers, flags = (numbers - self.shift).float(), flags.float()
        missing = torch.isnan(numbers)
        filled = torch.where(missing, self.fill, numbers)
        return torch.cat([filled, missing[:, self.indicated].float(), flags], 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        if self.model.signature.preprocessing is not None:
            inputs = self.encode(inputs)
        output = self.model(inputs)
        bags = self.model.signature.kind == "bags"
        features = output.vector.unsqueeze(0) if bags else output
        log_p = self.model.log_proba(features, self.readout)
        probabilities = torch.softmax(log_p / self.temperature, -1).float()
        return (probabilities, output.attention.float()) if bags else (probabilities,)


def _program(graph: Deployed, predictor: Predictor) -> torch.export.ExportedProgram:
    example = _raw(predictor, _SIZES[0], np.random.default_rng(0))
    if predictor.signature.preprocessing is not None:
        example = predictor.signature.preprocessing.numbers_and_flags(_parsed(predictor, example))
    try:
        with torch.no_grad(), _quiet():
            sizes = ({0: torch.export.Dim("n", min=1)},)
            return torch.export.export(graph, (torch.as_tensor(example),), dynamic_shapes=sizes)
    except Exception as error:  # of whatever kind the compiler's are
        label = network_label(predictor.recipe.network.name)
        said = reason(error)
        raise ExportError(
            f"{label} cannot be exported: what it computes depends on more than the values of its inputs, such as "
            f"their number ({said[:_SAID]}{'…' if len(said) > _SAID else ''})"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell at length of what is of no matter here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# --- what is said inside


def _metadata(
    predictor: Predictor, readout: str, temperature: float | None, columns: Preprocessing | None
) -> dict[str, Any]:
    signature, recipe = predictor.signature, predictor.recipe
    outputs = {"probabilities": "float32 [N, C] in the order of classes"}
    if signature.kind == "bags":
        outputs = {"probabilities": "float32 [1, C] in the order of classes", "attention": "float32 [N], sums to 1"}
    return {
        "producer": f"ncmi {ncmi.__version__}",
        "classes": list(signature.class_names),
        "inputs": _inputs(predictor, columns),
        "outputs": outputs,
        "kind": signature.kind,
        "data": recipe.data.title,
        "objective": recipe.objective.name,
        "network": recipe.network.name,
        "readout": readout,
        "temperature": temperature,
    }


def _inputs(predictor: Predictor, columns: Preprocessing | None) -> list[dict[str, Any]]:
    """Name, type, shape and meaning of each input."""
    signature = predictor.signature
    if columns is not None:
        return [
            {"name": name, "type": kind, "shape": ["N", 1], "meaning": meaning}
            for name, kind, meaning in _column_inputs(columns)
        ]
    if signature.kind == "image":
        shape, kind, meaning = list(signature.sample_shape), "uint8", "pixels 0…255, scaled to this size"
    elif signature.kind == "bags":
        shape, kind, meaning = list(signature.sample_shape), "float32", "features of one bag's instances"
    else:
        shape, kind, meaning = list(signature.sample_shape), "float32", "numbers in this order"
    about: dict[str, Any] = {"name": "inputs", "type": kind, "shape": ["N", *shape], "meaning": meaning}
    if (preprocessing := signature.preprocessing) is not None:
        names = [number.name for number in preprocessing.numbers]
        left = len(names) + sum(number.indicator for number in preprocessing.numbers)
        names += preprocessing.feature_names[left:]
        meaning = "numbers, NaN where missing; of a name with =, 1 where the column has this value, else 0"
        about |= {"shape": ["N", len(names)], "meaning": meaning, "columns": names}
        about |= {"type": "float64"} if preprocessing.is_shifted else {}
        if ordinal := {each.column: list(each.categories) for each in preprocessing.categories if each.ordinal}:
            about["numbered"] = ordinal
    elif signature.feature_names is not None:
        about["columns"] = list(signature.feature_names)
    return [about]


def _column_inputs(columns: Preprocessing) -> list[tuple[str, Literal["string", "float32", "float64"], str]]:
    """Name, type and meaning of each input of a table, numbers first."""
    kinds = {column.name: column for column in columns.columns}
    inputs: list[tuple[str, Literal["string", "float32", "float64"], str]] = []
    plain = "without blanks around it, empty where missing"
    for number in columns.numbers:
        column = kinds[number.column]
        if column.kind == "boolean":
            inputs.append((number.name, "string", f"{column.true!r} or {column.false!r}, {plain}"))
        else:
            part = f"{number.part} of the date" if number.part else "a number"
            inputs.append((number.name, "float64" if number.shift else "float32", f"{part}, NaN where missing"))
    inputs += [(each.column, "string", f"a category, {plain}") for each in columns.categories]
    names = [name for name, _, _ in inputs]
    if clash := [name for name in names if names.count(name) > 1 or name in _OUTPUTS]:
        raise ExportError(f"column {clash[0]!r} is called like another input or an output: rename it and train anew")
    return inputs


# --- ONNX


def _write_onnx(path: Path, program: Any, columns: Preprocessing | None, metadata: dict[str, Any]) -> None:
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    names = ["probabilities", "attention"] if metadata["kind"] == "bags" else ["probabilities"]
    try:
        with torch.no_grad(), _quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=["inputs"], output_names=names
            )
    except Exception as error:
        raise ExportError(f"ONNX has no operation for a part of this network ({reason(error)[:_SAID]})") from None
    assert exported is not None
    model = exported.model_proto
    inside = "network/"  # columns may be called like anything
    model = compose.add_prefix(model, inside)
    if columns is not None:
        front = _front(columns, model)
        model = compose.merge_models(front, model, io_map=[("encoded/all", f"{inside}inputs")])
    else:
        _rename_input(model, f"{inside}inputs", "inputs")
    graph = model.graph
    del graph.output[:]
    for name in names:
        graph.node.append(helper.make_node("Identity", [inside + name], [name], name=f"out/{name}"))
        shape = ["N"] if name == "attention" else [1 if len(names) > 1 else "N", len(metadata["classes"])]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    texts = np.array(metadata["classes"], dtype=object)
    graph.initializer.append(numpy_helper.from_array(texts, "out/classes"))
    graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["out/best"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Gather", ["out/classes", "out/best"], ["label"], axis=0))
    count = 1 if len(names) > 1 else "N"
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, [count]))
    said = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    helper.set_model_props(model, said | {"outputs": json.dumps({**metadata["outputs"], "label": "string [N]"})})
    model.producer_name, model.producer_version = "ncmi", ncmi.__version__
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _rename_input(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    model.graph.input[0].name = new


def _front(columns: Preprocessing, core: Any) -> Any:
    """A model from one input a column to the numbers and flags that the network's part of the file takes."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {column.name: column for column in columns.columns}
    nodes, inputs, constants = [], [], []
    numbers, flags, ordinals = [], [], []
    types = {"string": TensorProto.STRING, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
    for name, kind, _ in _column_inputs(columns):
        inputs.append(helper.make_tensor_value_info(name, types[kind], ["N", 1]))

    def look_up(source: str, target: str, **tables: Any) -> None:
        nodes.append(helper.make_node("LabelEncoder", [source], [target], domain="ai.onnx.ml", **tables))

    for number in columns.numbers:
        column = kinds[number.column]
        if column.kind == "boolean":
            meaning = _boolean_texts(column)
            numbers.append(f"encoded/{number.name}")
            look_up(
                number.name,
                numbers[-1],
                keys_strings=list(meaning),
                values_floats=list(meaning.values()),
                default_float=float("nan"),
            )
        else:
            numbers.append(number.name)
    for each in columns.categories:
        places = {value: place for place, value in enumerate(each.categories)}
        places = {text: places[value] for text, value in each.spellings.items()}
        if MISSING in places:
            places |= dict.fromkeys(_missing_texts(kinds[each.column]) - places.keys(), places[MISSING])
        place, target = f"place/{each.column}", f"encoded/{each.column}="
        look_up(each.column, place, keys_strings=list(places), values_int64s=list(places.values()), default_int64=-1)
        if each.ordinal:
            nodes.append(helper.make_node("Cast", [place], [target], to=TensorProto.FLOAT))
            ordinals.append(target)
            continue
        every = np.arange(len(each.categories), dtype=np.int64)[None]
        constants.append(numpy_helper.from_array(every, f"places/{each.column}"))
        nodes.append(helper.make_node("Equal", [place, f"places/{each.column}"], [f"is/{each.column}"]))
        nodes.append(helper.make_node("Cast", [f"is/{each.column}"], [target], to=TensorProto.FLOAT))
        flags.append(target)
    parts, whole = [*numbers, *flags, *ordinals], TensorProto.FLOAT
    if columns.is_shifted:
        whole, narrow = TensorProto.DOUBLE, parts
        parts = [f"wide/{part}" for part in narrow]
        nodes += [helper.make_node("Cast", [one], [other], to=whole) for one, other in zip(narrow, parts, strict=True)]
    nodes.append(helper.make_node("Concat", parts, ["encoded/all"], axis=1))
    output = helper.make_tensor_value_info("encoded/all", whole, ["N", None])
    graph = helper.make_graph(nodes, "ncmi columns", inputs, [output], constants)
    versions = [*core.opset_import, helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=versions, ir_version=core.ir_version)


def _boolean_texts(column: TableColumn) -> dict[str, float]:
    """What means 1 and 0 in a column of yes or no, as tables write it."""
    # where one is missing in some rows, frames hold 0 and 1 as floats
    meaning = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
    for text, value in ((column.false or "", 0.0), (column.true or "", 1.0)):
        meaning |= dict.fromkeys((text, text.lower(), text.upper(), text.title()), value)
    return meaning


def _missing_texts(column: TableColumn) -> set[str]:
    return {"", *MISSING_MARKS} - set(column.marks_kept)


# --- the trial


def _raw(predictor: Predictor, size: int, random: np.random.Generator) -> Any:
    """Made-up samples like those of training: an array, or of a table its columns."""
    signature = predictor.signature
    if signature.preprocessing is not None:
        return _made_up_rows(signature.preprocessing, predictor.model, size, random)
    if signature.kind == "image":
        return random.integers(0, 256, (size, *signature.sample_shape), dtype=np.uint8)
    mean, scale = (getattr(predictor.model.standardize, name).double().numpy() for name in ("mean", "scale"))
    return (mean + scale * random.normal(size=(size, *signature.sample_shape))).astype(np.float32)


def _made_up_rows(
    preprocessing: Preprocessing, model: Classifier, size: int, random: np.random.Generator
) -> pd.DataFrame:
    """Rows with values of training, unknown ones, and missing ones."""
    import pandas as pd

    numbers = {number.column: (number, place) for place, number in enumerate(preprocessing.numbers)}
    categories = {each.column: each.categories for each in preprocessing.categories}
    columns: dict[str, Any] = {}
    for column in preprocessing.columns:
        absent = random.random(size) < 0.2
        if column.kind == "date":
            days = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 60_000, size), unit="h")
            columns[column.name] = pd.Series(days).where(~absent)
        elif column.kind == "category":
            known = [value for value in categories.get(column.name, ("a",)) if value != MISSING]
            texts = random.choice([*known, "a value that training had not"], size)
            columns[column.name] = pd.Series(texts, dtype="str").where(~absent)
        elif column.kind == "boolean":
            texts = random.choice([column.true or "", column.false or ""], size)
            columns[column.name] = pd.Series(texts, dtype="str").where(~absent)
        else:
            number, place = numbers.get(column.name, (None, 0))
            fill = number.fill if number else 0.0
            values = fill + float(model.standardize.scale[place]) * random.normal(size=size)
            if not number or not number.shift:  # as the file takes them
                values = values.astype(np.float32).astype(np.float64)
            columns[column.name] = np.where(absent, np.nan, values)
    return pd.DataFrame(columns)


def _parsed(predictor: Predictor, frame: pd.DataFrame) -> pd.DataFrame:
    from ncmi.data.tables.load import read_rows

    data, preprocessing = predictor.recipe.data, predictor.signature.preprocessing
    assert isinstance(data, TableData)
    assert preprocessing is not None
    label = predictor.signature.label_column or ""
    return read_rows(frame, preprocessing.columns, data, label_column=label).rows.frame


def column_arrays(columns: Preprocessing, frame: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """A frame as what an ONNX file of a table takes: ``[N, 1]`` numbers or text by input.

    Args:
        frame: with numbers as numbers, dates as datetime64, and text for what is text.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    parts = {number.name: number for number in columns.numbers}
    for name, kind, _ in _column_inputs(columns):
        if kind == "string":
            values = frame[name].astype(object).where(frame[name].notna(), "").to_numpy(object)
        elif (part := parts[name].part) is not None:
            values = getattr(frame[parts[name].column].dt, part).to_numpy(np.float32)
        else:
            values = frame[name].to_numpy(np.dtype(kind))
        arrays[name] = values[:, None]
    return arrays


def _onnx_probabilities(path: Path) -> Outcome:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda arrays: np.asarray(session.run(["probabilities"], arrays)[0])


def _torch_probabilities(path: Path) -> Outcome:
    with _quiet():
        module = torch.export.load(str(path)).module()

    def probabilities(arrays: dict[str, Any]) -> npt.NDArray[Any]:
        with torch.no_grad():
            outputs: Sequence[Tensor] = module(torch.as_tensor(arrays["inputs"]))
        return np.asarray(outputs[0])

    return probabilities


def _difference(
    predictor: Predictor, readout: str, calibrated: bool, outcome: Outcome, columns: Preprocessing | None, size: int
) -> float:
    """Largest difference of a probability of the file from the run's own, on made-up samples."""
    raw = _raw(predictor, size, np.random.default_rng(size))
    own = predictor.decide(raw, readout, calibrated=calibrated).probabilities.double().numpy()
    arrays: dict[str, Any] = {"inputs": raw}
    if columns is not None:
        arrays = column_arrays(columns, raw)
    elif (preprocessing := predictor.signature.preprocessing) is not None:
        arrays = {"inputs": preprocessing.numbers_and_flags(_parsed(predictor, raw))}
    return float(np.abs(outcome(arrays) - own).max())
