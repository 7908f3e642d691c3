"""From a table's columns to features: what the training part shows of each, and scikit-learn's transformers by it.

What is learned is a :class:`Preprocessing`, plain values that a run keeps as JSON. The transformers are made anew from
it, so that nothing is ever unpickled and another version of scikit-learn reads it too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ncmi.data.tables.labels import plain_whole
from ncmi.data.tables.table import TableColumn, Writing
from ncmi.errors import listing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from torch import Tensor

MISSING = "(missing)"
"""The category of rows that have none."""
DATE_PARTS = ("year", "month", "day", "day_of_week", "hour", "minute")
_MOST_ONE_HOT = 500  # categories of one column
_MOST_BYTES = 2**30  # of all features of all rows in float32
_COARSE = 1e-3  # steps of float32 by the spread of a column, from which on it is shifted
_ROWS = 65536  # transformed at once: text is far larger as Python's objects than it is in a frame


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is kept as JSON."""


class NumberFeature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number: of a column, or a part of a date.

    Attributes:
        column: name of the column.
        part: of a date, one of :data:`DATE_PARTS`.
        fill: median of the training part, which stands in where the number is missing.
        indicator: whether a further feature says where it was missing; so where it is in the training part.
        shift: what is subtracted in float64, before the number becomes float32: where values differ by so little that
            float32 would make them equal (seconds since 1970), their median; else 0.
    """

    column: str
    fill: float
    indicator: bool
    part: str | None = None
    shift: float = 0.0

    @property
    def name(self) -> str:
        return self.column if self.part is None else f"{self.column} {self.part}"


class CategoryFeatures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A category: one feature of 0 and 1 for each value, or the number of the value.

    Attributes:
        column: name of the column.
        categories: values that are often enough in the training part, in order. All others, and those that it does not
            have, share one place: no feature is 1, or the number is -1.
        ordinal: whether values are numbered, as where there are very many.
    """

    column: str
    categories: tuple[str, ...]
    ordinal: bool

    @property
    def spellings(self) -> dict[str, str]:
        """The category that each text means: itself, and of a whole number such as 1 also 1.0, and the other way."""
        wholes = {plain: value for value in self.categories if (plain := plain_whole(value)) is not None}
        also = {text: value for plain, value in wholes.items() for text in (plain, f"{plain}.0")}
        return also | {value: value for value in self.categories}


class Preprocessing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the columns of a table become features ``[N, F]``: numbers, then categories, each in the table's order.

    Attributes:
        columns: as they are read, in the table's order.
        numbers, categories: what becomes of them.
        constant: columns, and parts of dates, that have one value in the training part and are left out.
        writing: of the text file of training, by which new files are read; None for all else.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [30.0, None, 50.0, 40.0], "sex": pd.Series(["f", "m", "f", "m"], dtype="str")})
        >>> columns = (TableColumn(name="age", kind="number"), TableColumn(name="sex", kind="category"))
        >>> fitted = fit_preprocessing(frame, columns, rows=4)
        >>> fitted.feature_names
        ('age', 'age missing', 'sex=f', 'sex=m')
        >>> fitted.transform(frame).tolist()[1]
        [40.0, 1.0, 0.0, 1.0]
    """

    columns: tuple[TableColumn, ...]
    numbers: tuple[NumberFeature, ...]
    categories: tuple[CategoryFeatures, ...]
    constant: tuple[str, ...] = ()
    writing: Writing | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F features; one that another bears already, such as of a column "age missing", is numbered."""
        names = [number.name for number in self.numbers]
        names += [f"{number.name} missing" for number in self.numbers if number.indicator]
        one_hot = (each for each in self.categories if not each.ordinal)
        names += [f"{each.column}={value}" for each in one_hot for value in each.categories]
        names += [each.column for each in self.categories if each.ordinal]
        counts: Counter[str] = Counter()
        for at, name in enumerate(names):
            while counts[name]:
                counts[name] += 1
                name = f"{name} ({counts[name]})"
            counts[name] = 1
            names[at] = name
        return tuple(names)

    @property
    def is_shifted(self) -> bool:
        """Whether float32 does not do for numbers as they stand in the table."""
        return any(number.shift for number in self.numbers)

    @property
    def is_flag(self) -> tuple[bool, ...]:
        """Of each feature whether it is 0 or 1 by what stands for it, and so needs no standardization."""
        flags = sum(number.indicator for number in self.numbers)
        flags += sum(len(each.categories) for each in self.categories if not each.ordinal)
        ordinal = sum(each.ordinal for each in self.categories)
        return (False,) * len(self.numbers) + (True,) * flags + (False,) * ordinal

    def transform(self, frame: pd.DataFrame) -> Tensor:
        """Features ``[N, F]`` float32 of a frame that was read by :attr:`columns`; ±inf for numbers beyond float32."""
        import numpy as np
        import torch

        features = np.empty((len(frame), len(self.feature_names)), np.float32)
        transformer = self._transformer()
        for start in range(0, len(frame), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            with np.errstate(over="ignore"):  # what overflows is infinite
                features[start : start + len(part)] = transformer.transform(self._arranged(part))
        return torch.from_numpy(features)

    def numbers_and_flags(self, frame: pd.DataFrame) -> Tensor:
        """``[N, K]``, as :meth:`transform` but with NaN where a number is missing, and without indicators.

        In float32; where :attr:`is_shifted`, in float64 and as the numbers stand in the table.
        """
        import numpy as np
        import torch

        numbers = [_number(frame, number.column, number.part) for number in self.numbers]
        indicators = sum(number.indicator for number in self.numbers)
        rest = self.transform(frame)[:, len(numbers) + indicators :]
        before = np.stack(numbers, 1) if numbers else np.empty((len(frame), 0))
        dtype = torch.float64 if self.is_shifted else torch.float32
        return torch.cat([torch.from_numpy(before).to(dtype), rest.to(dtype)], 1)

    def unseen(self, frame: pd.DataFrame) -> dict[str, int]:
        """How many rows have a category that the training part does not have often enough, by column."""
        counts = {}
        for each in self.categories:
            values = frame[each.column]
            known = values.isin(list(each.spellings)) | values.isna()
            counts[each.column] = int((~known).sum())
        return {column: count for column, count in counts.items() if count}

    def _keyed_numbers(self) -> list[tuple[str, NumberFeature]]:
        # names do not do: a date's part may be called like another column
        return [(f"number {at}", number) for at, number in enumerate(self.numbers)]

    def _arranged(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Numbers and parts of dates as float64, categories as objects, each column by a name of its own."""
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {
            key: _number(frame, number.column, number.part) - number.shift for key, number in self._keyed_numbers()
        }
        for each in self.categories:
            spellings = each.spellings
            texts = _texts(frame[each.column]).tolist()
            columns[_coded(each.column)] = np.array([spellings.get(text, text) for text in texts], object)
        return pd.DataFrame(columns)

    def _transformer(self) -> ColumnTransformer:
        """scikit-learn's transformers in the state that fitting left them in."""
        import numpy as np
        import pandas as pd
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

        one_hot = [each for each in self.categories if not each.ordinal]
        ordinal = [each for each in self.categories if each.ordinal]

        def lists(features: list[CategoryFeatures]) -> list[npt.NDArray[Any]]:
            return [np.array(each.categories, dtype=object) for each in features]

        transformer = ColumnTransformer(
            [
                (
                    "numbers",
                    SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
                    [key for key, _ in self._keyed_numbers()],
                ),
                (
                    "one_hot",
                    OneHotEncoder(
                        categories=lists(one_hot), handle_unknown="ignore", sparse_output=False, dtype=np.float32
                    ),
                    [_coded(each.column) for each in one_hot],
                ),
                (
                    "ordinal",
                    OrdinalEncoder(
                        categories=lists(ordinal),
                        handle_unknown="use_encoded_value",
                        unknown_value=-1,
                        dtype=np.float32,
                    ),
                    [_coded(each.column) for each in ordinal],
                ),
            ],
            sparse_threshold=0,
        )
        # two rows that show just this: medians, and where something is missing
        fills = {key: number.fill - number.shift for key, number in self._keyed_numbers()}
        seen: dict[str, Any] = {
            key: [fills[key], math.nan if number.indicator else fills[key]] for key, number in self._keyed_numbers()
        }
        seen |= {_coded(each.column): [each.categories[0]] * 2 for each in self.categories}
        transformer.fit(pd.DataFrame(seen))
        # an indicator is asked for by the training part; of new data it may say that another column lacks something
        imputer = transformer.named_transformers_["numbers"]
        if self.numbers:
            imputer.indicator_.set_params(error_on_new=False)
        return transformer


def fit_preprocessing(
    frame: pd.DataFrame, columns: tuple[TableColumn, ...], rows: int, writing: Writing | None = None
) -> Preprocessing:
    """What the rows of the training part show.

    Args:
        frame: those rows alone.
        columns: how its columns are read.
        rows: of the whole table, by which it is seen what fits into memory.
        writing: of the text file that they come from.

    Raises:
        ValueError: where no column is left that differs between rows, or two features would have one name.
    """
    numbers: list[NumberFeature] = []
    categories: list[CategoryFeatures] = []
    constant: list[str] = []
    for column in columns:
        if column.kind == "category":
            feature = _fit_categories(frame, column.name)
            if feature is None:
                constant.append(column.name)
            else:
                categories.append(feature)
            continue
        fitted = _fit_date(frame, column.name) if column.kind == "date" else [_fit_number(frame, column.name)]
        kept = [feature for feature in fitted if feature is not None]
        numbers += kept
        if not kept:
            constant.append(column.name)
    if not numbers and not categories:
        raise ValueError(
            f"no feature differs between the rows of the training part (constant: {listing(constant)}): give columns "
            "that tell the classes apart"
        )
    return Preprocessing(
        columns=columns,
        numbers=tuple(numbers),
        categories=tuple(_fit_memory(categories, len(numbers), rows)),
        constant=tuple(constant),
        writing=writing,
    )


def _fit_date(frame: pd.DataFrame, column: str) -> list[NumberFeature | None]:
    """The parts that differ; they are missing together, so that the first one's indicator does for all."""
    differing = [part for part in DATE_PARTS if len(set(_number(frame, column, part)[frame[column].notna()])) > 1]
    features = [_fit_number(frame, column, part) for part in differing or DATE_PARTS[:1]]
    return [
        each and msgspec.structs.replace(each, indicator=each.indicator and i == 0) for i, each in enumerate(features)
    ]


def _fit_number(frame: pd.DataFrame, column: str, part: str | None = None) -> NumberFeature | None:
    """None for a column that says nothing: one value throughout, or none at all."""
    import numpy as np

    values = _number(frame, column, part)
    is_missing = np.isnan(values)
    present = values[~is_missing]
    if len(present) == 0 or (present.min() == present.max() and not is_missing.any()):
        return None
    middle = float(np.median(present))
    with np.errstate(over="ignore"):  # what overflows is infinite, and told where it is used
        step, spread = np.spacing(np.float32(np.abs(present).max())), present.std()
    shift = middle if step > _COARSE * spread > 0 else 0.0
    return NumberFeature(column=column, part=part, fill=middle, indicator=bool(is_missing.any()), shift=shift)


def _fit_categories(frame: pd.DataFrame, column: str) -> CategoryFeatures | None:
    import pandas as pd

    counts = pd.Series(_texts(frame[column])).value_counts()
    # 1 and 1.0 are one category, called as it is written more often
    plain = pd.Series([plain_whole(text) or text for text in counts.index], index=counts.index, dtype=object)
    if not plain.is_unique:
        names = {key: text for text, key in reversed(list(plain.items()))}
        counts = counts.groupby(plain.map(names)).sum()
    if len(counts) < 2:
        return None
    # what hardly occurs is learned by heart
    least = max(3, len(frame) // 10_000)
    often = counts[counts >= least]
    kept = sorted(map(str, often.index if len(often) else counts.index))
    return CategoryFeatures(column=column, categories=tuple(kept), ordinal=len(kept) > _MOST_ONE_HOT)


def _fit_memory(categories: list[CategoryFeatures], others: int, rows: int) -> Iterator[CategoryFeatures]:
    """Number the values of the largest columns, until the features of all rows take no more than a gibibyte."""
    budget = _MOST_BYTES // (4 * max(rows, 1)) - others
    total = sum(1 if each.ordinal else len(each.categories) for each in categories)
    numbered = set()
    for each in sorted(categories, key=lambda each: -len(each.categories)):
        if total <= budget:
            break
        if not each.ordinal and len(each.categories) > 2:
            total -= len(each.categories) - 1
            numbered.add(each.column)
    for each in categories:
        yield msgspec.structs.replace(each, ordinal=each.ordinal or each.column in numbered)


def _number(frame: pd.DataFrame, column: str, part: str | None) -> npt.NDArray[np.float64]:
    import numpy as np

    values = frame[column]
    if part is None:
        return values.to_numpy(np.float64, na_value=np.nan)
    dates: Any = values.dt
    return np.asarray(getattr(dates, part), dtype=np.float64)


def _texts(values: pd.Series[Any]) -> npt.NDArray[Any]:
    """Categories as Python's text, with a name for what is missing."""
    return values.astype(object).where(values.notna(), MISSING).to_numpy(object)


def _coded(column: str) -> str:
    """A category's column beside numbers, which may be called like a part of a date."""
    return f"{column}="
