"""Data as a Python program holds it, arrays, frames, images and bags: to predict, and as files to train on."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ncmi.data.arrays import as_inputs
from ncmi.data.bags.bag import Bag, BagError, BagSource, bag_shape, make_bag
from ncmi.data.bags.readers import open_bags
from ncmi.data.images import fit_image, with_channels
from ncmi.data.load import NewSamples, known_labels, load_new, new_image_files, new_rows, of_form, usable_samples
from ncmi.data.signature import Signature
from ncmi.data.tables.reading import raw_table_from_frame, without_index
from ncmi.errors import listing, naming
from ncmi.files import write_atomically
from ncmi.recipes.data import ImageData, TableData

if TYPE_CHECKING:
    import pandas as pd

_LABEL = "label"  # column of labels that come beside a frame
_FORMS = "a path, a NumPy array, a pandas or polars frame, or a list of images or paths"


def is_path(value: Any) -> bool:
    """Whether a value names a file or folder."""
    return isinstance(value, str | PathLike)


def new_samples(inputs: Any, signature: Signature, data: TableData | ImageData) -> NewSamples:
    """Samples for a model that has been trained, from a path or from memory; see :func:`ncmi.data.load.load_new`.

    Args:
        inputs: a path. Of tables also a frame, with columns in any order and further ones; a dict of columns, or a list
            of dicts; or an array ``[N, F]`` of the feature columns in their order of training. Of images also a uint8
            array ``[N, H, W]``, ``[N, H, W, c]`` or ``[N, c, H, W]``; a list of such images, of PIL's, or of paths,
            each of any size: they are scaled as training images are.
        signature: of the model.
        data: section of the run's recipe.

    Raises:
        FileNotFoundError, ValueError: for what is none of these, or unlike the training data.
    """
    if is_path(inputs):
        return load_new(inputs, signature, data)
    if isinstance(data, TableData):
        return _new_table(inputs, signature, data)
    if isinstance(inputs, Image.Image):
        inputs = [inputs]
    if isinstance(inputs, list | tuple):
        if not inputs:
            raise ValueError("no image given: give at least one")
        paths = [each for each in inputs if is_path(each)]
        if len(paths) == len(inputs):
            files = [Path(each).expanduser() for each in inputs]
            return new_image_files(files, Path(), signature, data)
        if paths:
            raise ValueError(f"a list of images and paths ({paths[0]}): give images alone, or paths alone")
        return _in_order(torch.stack([_picture(each, signature) for each in inputs]))
    array = as_array(inputs)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[1:] != signature.sample_shape[1:]:
        raise ValueError(f"an array of shape {list(array.shape)}, like one image: one image x is x[None] (or [x])")
    images, kind = as_inputs(array)
    if kind == "image" and images.shape[2:] != signature.sample_shape[1:]:
        return _in_order(torch.stack([_picture(image, signature) for image in images]))
    return _in_order(of_form(images, kind, signature))


def _in_order(inputs: Tensor) -> NewSamples:
    return usable_samples(inputs, [str(row) for row in range(len(inputs))])


def _new_table(inputs: Any, signature: Signature, data: TableData) -> NewSamples:
    if is_frame(inputs):
        return new_rows(as_frame(inputs), signature, data)
    rows = as_array(inputs)
    if rows.ndim != 2:
        raise ValueError(
            f"an array of shape {list(rows.shape)}: give rows [N, F]; one row x is x[None] (or [x]), of "
            "a frame frame.iloc[[0]]"
        )
    if signature.preprocessing is None:
        table, kind = as_inputs(_numbers(rows, "the run was trained on numbers alone"))
        return _in_order(of_form(table, kind, signature))
    names = [column.name for column in signature.preprocessing.columns]
    if rows.shape[1] != len(names):
        raise ValueError(
            f"{rows.shape[1]} columns, but the run was trained on {len(names)}: {listing(names)}: give these in this "
            "order, or a data frame, whose columns are found by their names"
        )
    import pandas as pd

    return new_rows(pd.DataFrame(rows, columns=names).infer_objects(), signature, data)


def are_bags(value: Any) -> bool:
    """Whether a value is a list of arrays ``[N, D]`` of floats."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(np.ndim(each) == 2 and as_array(each).dtype.kind == "f" for each in value)
    )


def is_frame(value: Any) -> bool:
    """Whether a value is a data frame of pandas, polars or the like, a dict, or a list of dicts."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, Mapping) for each in value)
    return hasattr(value, "columns") and (hasattr(value, "to_pandas") or hasattr(value, "iloc"))


def as_frame(value: Any) -> pd.DataFrame:
    """A pandas frame of a frame, a dict of columns, a dict of one row, or a list of dicts.

    Example:
        >>> as_frame({"age": 41, "sex": "f"}).shape, as_frame({"age": [41, 42]}).shape
        ((1, 2), (2, 1))
    """
    import pandas as pd

    if isinstance(value, Mapping):
        scalar = all(isinstance(each, str) or not hasattr(each, "__len__") for each in value.values())
        return pd.DataFrame([value] if scalar else value)
    if isinstance(value, list | tuple):
        return pd.DataFrame(list(value))
    frame: pd.DataFrame = value if isinstance(value, pd.DataFrame) else value.to_pandas()
    return frame


def as_array(value: Any) -> npt.NDArray[Any]:
    """A NumPy array of an array, a tensor or nested lists.

    Raises:
        ValueError: for what is none of these.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if hasattr(value, "toarray"):
        raise ValueError(f"a sparse {type(value).__name__}: give X.toarray()")
    if not isinstance(value, list | tuple) and not hasattr(value, "__array__"):
        raise ValueError(f"inputs of type {type(value).__name__}: give {_FORMS}")
    try:
        array: npt.NDArray[Any] = np.asarray(value)
    except ValueError:
        raise ValueError("inputs that differ in length: give an array, or a frame") from None
    return array


def _numbers(rows: npt.NDArray[Any], cure: str) -> npt.NDArray[Any]:
    """Rows whose values may be Python's objects or text as numbers."""
    if rows.dtype.kind not in "OUS":
        return rows
    try:
        return rows.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"values that are no numbers ({error}): {cure}") from None


def _picture(image: Any, signature: Signature) -> Tensor:
    """One image ``[channels, H, W]`` uint8 as the network takes it, scaled as training images are."""
    channels, height, width = signature.sample_shape
    if not isinstance(image, Image.Image):
        pixels = as_array(image)
        array, _ = as_inputs(pixels[None] if pixels.ndim in (2, 3) else pixels)
        if len(array) != 1 or array.ndim != 4:
            raise ValueError(f"an image of shape {list(pixels.shape)}: give [H, W], [H, W, 3] or [3, H, W]")
        if array.shape[2:] == (height, width):  # nothing to scale: as arrays of many are taken
            return with_channels(array, channels)[0]
        image = Image.fromarray(array[0, 0].numpy() if array.shape[1] == 1 else array[0].permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(fit_image(image, (height, width), channels)))


def label_indices(labels: Any, signature: Signature) -> Tensor:
    """Indices ``[N]`` int64 among a run's classes of labels ``[N]``: their names, or the numbers that are their names.

    Raises:
        ValueError: for classes that the run does not know, by name.
    """
    values = _labels(labels)
    if values.ndim != 1:
        raise ValueError(f"labels of shape {list(values.shape)}: give one for each sample, [N]")
    whole = values.dtype.kind == "f" and bool((values == np.round(values)).all())
    classes, places = np.unique(values.astype(np.int64) if whole else values, return_inverse=True)
    return known_labels([str(name) for name in classes.tolist()], signature)[torch.from_numpy(places)]


class MemoryBags(BagSource):
    """Bags in memory, called by their numbers.

    Args:
        arrays: of each bag its features ``[N, D]``.
    """

    path = Path("bags")

    def __init__(self, arrays: list[Any]) -> None:
        digits = len(str(len(arrays) - 1))
        self._arrays = {f"{number:0{digits}d}": array for number, array in enumerate(arrays)}
        self.names = tuple(self._arrays)

    def shape(self, name: str) -> tuple[int, int]:
        return bag_shape(self.entry(self._arrays, name).shape, self.path / name)

    def load(self, name: str) -> Bag:
        return make_bag(name, self.entry(self._arrays, name), None, {}, self.path / name)


def open_any_bags(inputs: Any, *, features_key: str | None, coords_key: str | None) -> Iterator[BagSource]:
    """Sources of bags: a path, an array or tensor ``[N, D]`` of one bag, or a list of paths or of arrays.

    Raises:
        BagError: for what is none of these.
    """
    if is_path(inputs):
        inputs = [inputs]
    if isinstance(inputs, list | tuple) and inputs:
        if all(map(is_path, inputs)):
            for path in inputs:
                yield open_bags(path, features_key=features_key, coords_key=coords_key)
            return
        if all(len(getattr(each, "shape", ())) >= 2 for each in inputs):
            yield MemoryBags([each if isinstance(each, Tensor) else as_array(each) for each in inputs])
            return
    elif len(getattr(inputs, "shape", ())) == 2:
        yield MemoryBags([inputs if isinstance(inputs, Tensor) else as_array(inputs)])
        return
    raise BagError(
        f"inputs of type {type(inputs).__name__}: give the features of a bag [N, D], a list of such arrays, or paths "
        "of features"
    )


def keep(inputs: Any, labels: Any, folder: Path, name: str, of_index: Collection[str] = ()) -> tuple[Path, str | None]:
    """Write what a Python program holds as a file that runs are trained on, called by its content.

    Args:
        inputs: a frame, ``.parquet``; an array ``[N, F]`` or of images, ``.npz``; a list of bags ``[N, D]``, ``.npz``.
        labels: ``[N]``; None where they are a column of the frame.
        folder: where to.
        name: what the data is called.
        of_index: names of index levels of a frame that are columns after all; what else is in an index is not kept.

    Returns:
        The file, and its label column where that is known.

    Raises:
        ValueError: for what cannot be written, or labels that do not fit; the message names the cure.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name={name!r}: give letters, digits, hyphens and underscores")
    if is_frame(inputs):
        return _keep_frame(as_frame(inputs), labels, folder, name, of_index)
    if labels is None:
        raise ValueError(f"{type(inputs).__name__} without labels: give (X, y), or a data frame with a label column")
    y = _labels(labels)
    if isinstance(inputs, list | tuple) and inputs:
        inputs = _stacked(inputs)
    if are_bags(inputs):
        arrays = _bag_arrays([as_array(bag) for bag in inputs], y)
    else:
        x, _ = as_inputs(_numbers(as_array(inputs), "give a data frame, whose columns may hold text"))
        arrays = {"x": x.numpy(), "y": y}
    if len(y) != len(inputs):
        raise ValueError(f"{len(inputs)} samples and {len(y)} labels: give one for each")
    digest = blake2b(digest_size=4)
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    path = folder / f"{name}-{digest.hexdigest()}.npz"
    write_atomically(path, write)
    return path, None


def _labels(labels: Any) -> npt.NDArray[Any]:
    """Labels as numbers or text; a missing one would become a class that is called so.

    Raises:
        ValueError: for missing labels.
    """
    import pandas as pd

    values = as_array(labels)
    # in an array of text a missing value is text already
    absent = pd.isna(np.asarray(labels, dtype=object) if isinstance(labels, list | tuple) else values)
    if absent.any():
        row = int(np.argwhere(absent)[0, 0])
        raise ValueError(
            f"row {row} (counted from 0) has no label; {int(absent.sum())} such in all: label or drop them"
        )
    values = np.array(values.tolist()) if values.dtype == object else values
    return values.astype(str) if values.dtype == object else values


def _stacked(inputs: list[Any] | tuple[Any, ...]) -> Any:
    """Samples in a list, of PIL's images as one array ``[N, H, W]`` or ``[N, H, W, 3]``.

    Raises:
        ValueError: for paths, and for images that differ in size.
    """
    if any(map(is_path, inputs)):
        raise ValueError(
            "a list of paths: give the path of a folder with one folder for each class, or of a CSV of paths and labels"
        )
    if not all(isinstance(each, Image.Image) for each in inputs):
        return inputs
    if len(sizes := {image.size for image in inputs}) > 1:
        raise ValueError(f"images of {len(sizes)} sizes: scale them to one (image.resize), or give a folder of files")
    mode = "L" if all(image.mode in ("1", "L") for image in inputs) else "RGB"
    return np.stack([np.asarray(image.convert(mode)) for image in inputs])


def _bag_arrays(bags: list[npt.NDArray[Any]], labels: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    if len({bag.shape[1] for bag in bags}) > 1:
        raise ValueError("bags of different widths: give [N, D] of one D")
    counts = [len(bag) for bag in bags]
    return {"x": np.concatenate(bags), "bag": np.repeat(np.arange(len(bags)), counts), "bag_label": labels}


def _keep_frame(
    frame: pd.DataFrame, labels: Any, folder: Path, name: str, of_index: Collection[str]
) -> tuple[Path, str | None]:
    import pandas as pd

    column, frame = None, without_index(frame, of_index)
    if labels is not None:
        values = pd.Series(_labels(labels))
        if len(values) != len(frame):
            raise ValueError(f"{len(frame)} rows and {len(values)} labels: give one for each")
        own = getattr(labels, "name", None)
        column = _LABEL if own is None else str(own)
        if column in map(str, frame.columns):
            raise ValueError(f"the labels are called {column!r} as a column of the frame is: rename one of them")
        frame = frame.assign(**{column: values})
    taken = raw_table_from_frame(frame).frame  # what is no table is told here
    frame = frame.set_axis(list(taken.columns), axis=1)
    hashes = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy()
    digest = blake2b(hashes.tobytes() + repr(list(frame.columns)).encode(), digest_size=4).hexdigest()
    path = folder / f"{name}-{digest}.parquet"
    with naming("the frame"):
        write_atomically(path, lambda temporary: _write_parquet(frame, taken, temporary))
    return path, column


def _write_parquet(frame: pd.DataFrame, taken: pd.DataFrame, path: Path) -> None:
    """Write a frame; columns that Parquet has no type for, such as intervals, are written as a table takes them.

    Args:
        taken: the same columns as numbers, dates and text.
    """
    import pandas as pd

    without_type = (TypeError, ValueError, NotImplementedError, OverflowError)
    try:
        frame.to_parquet(path)
        return
    except without_type:
        writable = {}
    for name, column in frame.items():
        try:
            column.to_frame().to_parquet(io.BytesIO())
            writable[name] = column
        except without_type:
            # what is categorical stays so
            is_category = isinstance(column.dtype, pd.CategoricalDtype)
            writable[name] = taken[str(name)].astype("category") if is_category else taken[str(name)]
    pd.DataFrame(writable).to_parquet(path)
