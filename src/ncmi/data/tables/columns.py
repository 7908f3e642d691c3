"""Kinds of columns, told by what is in them; and columns read as their kind says, alike in training and in new data."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ncmi.data.columns import PART_WORDS, TRAIN, called_like
from ncmi.data.tables.dialect import MISSING_MARKS, Known
from ncmi.data.tables.table import TableColumn
from ncmi.errors import listing

if TYPE_CHECKING:
    import pandas as pd

    from ncmi.data.tables.reading import RawTable
    from ncmi.recipes.data import TableData

ROW_NAMES = (
    *("", "index", "idx", "row", "rows", "rowname", "rownames", "row_names", "row_number", "rownumber", "row_id"),
    *("no", "no_", "nr", "#", "sl_no", "s_no", "sno", "serial", "serial_no", "serial_number", "obs", "sr_no"),
)
"""What columns are called that count the rows."""
_ID = re.compile(r"(?i)(.*[_ .\-])?(id|ids|uuid|guid|identifier|hash)|.*[a-z](Id|ID)|id[_ .\-].*|id_?number")
_BOOLEANS = (
    *(("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("on", "off")),
    *(("ja", "nein"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("sim", "não"), ("wahr", "falsch"), ("да", "нет")),
)
_DATE_FORMATS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d/%m/%y", "%m/%d/%y"),
    *(
        "%d.%m.%y",
        "%d-%b-%Y",
        "%d-%b-%y",
        "%d %b %Y",
        "%d %B %Y",
        "%b %d, %Y",
        "%B %d, %Y",
        "%b %d %Y",
        "%b-%y",
        "%b %Y",
    ),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_FAR_YEAR = re.compile(r"(?<!\d)(0\d|1[0-5]|2[3-9]|[3-9]\d)\d\d(?!\d)")
_YEARS = (1678, 2261)  # whole ones that nanoseconds in 64 bits reach
_ISO = re.compile(r"\d{4}-\d{1,2}(-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)?")
_POINT = re.compile(r"[-+]?([1-9]\d{0,2}(,\d{3})+|\d+)?(\.\d*)?([eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?([1-9]\d{0,2}(\.\d{3})+|\d+)?(,\d*)?([eE][-+]?\d+)?")
_FLAGS = {"true": 1.0, "false": 0.0}
_SENTINELS = (-99999.0, -9999.0, -999.0, -99.0, 9999.0, 99999.0)


@dataclass(frozen=True, eq=False)
class Profile:
    """What is in a column.

    Attributes:
        kind: "whole" and "fraction" for numbers, "text", "date".
        values: distinct ones, without missing; None of numbers with more than a thousand.
        counts: of each.
        distinct: number of distinct values; of numbers with more than a thousand at least that.
        present: number of rows that hold a value.
        rows: number of rows.
    """

    kind: Literal["whole", "fraction", "text", "date"]
    values: list[Any] | None
    counts: npt.NDArray[np.int64]
    distinct: int
    present: int
    rows: int


def profile_of(column: pd.Series[Any], missing: Sequence[str] = ()) -> Profile:
    """A profile; in text, usual marks of missing values count as missing."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    rows = len(column)
    if is_datetime64_any_dtype(column):
        return Profile("date", None, np.empty(0, np.int64), int(column.nunique()), int(column.notna().sum()), rows)
    if is_numeric_dtype(column):
        values = column.to_numpy(np.float64)
        finite = np.isfinite(values)
        present = int(finite.sum())
        fraction = bool((values[finite] != np.round(values[finite])).any())
        if fraction and np.unique(values[:20_000]).size > 5000:
            return Profile("fraction", None, np.empty(0, np.int64), 5001, present, rows)
        if rows <= 50_000:
            distinct, counts = np.unique(values[finite], return_counts=True)
        else:  # by a hash, without sorting
            table = column[finite].value_counts()
            distinct, counts = table.index.to_numpy(np.float64), table.to_numpy()
        few = len(distinct) <= 1000
        return Profile(
            "fraction" if fraction else "whole",
            distinct.tolist() if few else None,
            counts.astype(np.int64) if few else np.empty(0, np.int64),
            len(distinct),
            present,
            rows,
        )
    table = column.value_counts()
    texts = [str(text) for text in table.index]
    absent = {*MISSING_MARKS, *missing} - set(_marks_kept(texts, missing))
    there = np.array([text not in absent for text in texts], bool)
    counts = table.to_numpy(np.int64)[there]
    return Profile("text", [t for t in texts if t not in absent], counts, len(counts), int(counts.sum()), rows)


def _marks_kept(values: Iterable[str], missing: Sequence[str]) -> tuple[str, ...]:
    """Usual marks that are values: None as a word among words, - beside +, signs among signs."""
    values = {str(value) for value in values}
    others = values - {*MISSING_MARKS, *missing}
    signs = bool(others) and all(re.fullmatch(r"[^\w\s]+", value) for value in others)
    kept = {"-", "--", "."} if signs else set()
    if any(re.search(r"[^\W\d_]{2}", value) for value in others):
        kept |= {"None", "none"}
    return tuple(sorted((kept & values) - set(missing)))


def column_named(name: str, columns: Sequence[str], option: str) -> str:
    """The column that an option names, or numbers from 1 or -1.

    Raises:
        ValueError: if there is none; the message names those that are spelled most alike.

    Example:
        >>> column_named("-1", ["a", "b"], "--data.drop"), column_named("a", ["a", "b"], "--data.drop")
        ('b', 'a')
    """
    if name in columns:
        return name
    if re.fullmatch(r"[-+]?\d+", name.strip()):
        number = int(name)
        if 1 <= abs(number) <= len(columns):
            return columns[number - 1 if number > 0 else number]
        raise ValueError(f"no column {number} ({option}): there are {len(columns)}, counted from 1")
    folded = {column.strip().casefold(): column for column in columns}
    near = difflib.get_close_matches(name.strip().casefold(), list(folded), 3, 0.6)
    meant = f"did you mean {listing([folded[key] for key in near])}? " if near else ""
    raise ValueError(f"no column {name!r} ({option}): {meant}there is {listing(columns)}")


def understand_columns(
    raw: RawTable, names: Sequence[str], profiles: dict[str, Profile], data: TableData
) -> tuple[tuple[TableColumn, ...], tuple[str, ...]]:
    """How to read each feature column; and a line each of what is left out, and of what could be meant otherwise.

    Args:
        names: the columns that are neither label, id, group, time nor split.
        profiles: of each of them.

    Raises:
        ValueError: for an option that names no column.
    """
    everything = list(raw.frame.columns)
    categorical = {column_named(name, everything, "--data.categorical") for name in data.categorical}
    numeric = {column_named(name, everything, "--data.numeric") for name in data.numeric}
    columns: list[TableColumn] = []
    notes: list[str] = []
    out: dict[str, list[str]] = {}
    for name in names:
        column = raw.frame[name]
        profile = profiles[name]
        forced: Literal["category", "number"] | None = (
            "category" if name in categorical else "number" if name in numeric else None
        )
        if forced is None and name in raw.categorical:
            forced = "category"
        reason = None if name in categorical | numeric else _unusable(name, column, profile, raw)
        if reason is None:
            if profile.distinct == 0:
                reason = "empty"
            elif profile.distinct == 1 and profile.present == profile.rows:
                reason = "the same in every row"
        if reason is None:
            written = raw.writing.decimal if raw.writing else None
            answer = _understand(name, column, profile, data.missing, forced, notes, data.decimal, written)
            if isinstance(answer, TableColumn):
                columns.append(answer)
                if _may_count_rows(profile) and _counts_rows(column):
                    notes.append(
                        f"{name!r} numbers the rows, which can give the label away: leave it out with --data.drop"
                    )
                continue
            reason = answer
        out.setdefault(reason, []).append(name)
    notes += [f"left out, {reason}: {listing(group, 8)}" for reason, group in out.items()]
    return tuple(columns), tuple(notes)


def says_parts(profile: Profile) -> bool:
    """Whether a column says which part each row is of: of some that it is for training, of others that it is not."""
    if profile.kind != "text" or not 2 <= profile.distinct <= 10:
        return False
    parts = {PART_WORDS.get(str(value).strip().lower()) for value in profile.values or ()}
    return None not in parts and TRAIN in parts and len(parts) > 1


def _unusable(name: str, column: pd.Series[Any], profile: Profile, raw: RawTable) -> str | None:
    """Why a column is no feature, by its numbers or by what it says of parts; None where it may be one."""
    if says_parts(profile):
        return "says the part of each row (for such parts say --data.split-column)"
    if profile.kind != "whole" or profile.distinct < 2:
        return None
    nameless = name in raw.nameless
    counts = _may_count_rows(profile) and _counts_rows(column)
    first = not raw.has_header and name == raw.frame.columns[0]
    if counts and (nameless or first or called_like([name], ROW_NAMES) or name == "X" or _ID.fullmatch(name.strip())):
        return "a row number, which can give the label away"
    if nameless and profile.distinct == profile.present:
        return "an index without a name, which can give the label away"
    if _ID.fullmatch(name.strip()) and profile.distinct > 0.5 * profile.present and profile.distinct > 20:
        return "called like an id"
    return None


def _may_count_rows(profile: Profile) -> bool:
    return profile.kind == "whole" and profile.present == profile.rows == profile.distinct and profile.rows >= 5


def _counts_rows(column: pd.Series[Any]) -> bool:
    values = column.to_numpy(np.float64)
    return bool((np.diff(values) == 1).all()) and values[0] in (0, 1)


def _understand(
    name: str,
    column: pd.Series[Any],
    profile: Profile,
    missing: Sequence[str],
    forced: Literal["category", "number"] | None,
    notes: list[str],
    told: Literal["point", "comma"] | None = None,
    written: Literal[".", ","] | None = None,
) -> TableColumn | str:
    """How to read a column, or why it is left out.

    Args:
        written: the decimal sign of the text file; None where numbers are numbers.
    """
    if profile.kind == "date":
        return TableColumn(name=name, kind="date")
    if profile.kind != "text":
        if forced == "category":
            return TableColumn(name=name, kind="category")
        _doubt_numbers(name, column, profile, notes)
        return TableColumn(name=name, kind="number", decimal=written or ".")
    values = [str(value) for value in profile.values or ()]
    counts = profile.counts
    if forced != "category":
        decimal, good = _number_style(values, told, written)
        present = int(counts[good].sum())
        if forced == "number" or (present and present == profile.present):
            if (grouped := _grouped(values, decimal or ".")) and (decimal is None or (decimal == "," and not told)):
                sign = "a comma" if decimal is None else "a point"
                notes.append(f"numbers in {name!r} such as {grouped!r} are taken with {sign} between thousands")
            _note_strays(name, values, counts, good, "as told", notes)
            return TableColumn(name=name, kind="number", decimal=decimal or ".")
        if present >= 0.99 * profile.present:
            _note_strays(name, values, counts, good, "since they are rare; if not, say --data.categorical", notes)
            return TableColumn(name=name, kind="number", decimal=decimal or ".")
        for true, false in _BOOLEANS:
            if {value.casefold() for value in values} == {true, false}:
                return TableColumn(name=name, kind="boolean", true=true, false=false)
        if present < 0.5 * profile.present and (date := _date(name, values, notes)) is not None:
            return date
        if (reason := _not_categories(name, values, counts, profile)) is not None:
            return reason
        if present >= 0.5 * profile.present:
            strays = [value for value, number in zip(values, good, strict=True) if not number]
            notes.append(
                f"{name!r} mixes numbers and text ({listing(strays, 3)}) and is taken as categories: "
                "--data.numeric takes it as numbers, --data.missing names marks of missing values"
            )
    kept = _marks_kept(column.dropna().unique(), missing)
    if kept:
        notes.append(f"{listing(kept)} in {name!r} is a category, not a missing value; otherwise say --data.missing")
    return TableColumn(name=name, kind="category", marks_kept=kept)


def _not_categories(name: str, values: list[str], counts: npt.NDArray[np.int64], profile: Profile) -> str | None:
    """Why a column of text is left out; None for categories."""
    share = profile.distinct / max(profile.present, 1)
    words = float(np.average([value.count(" ") + 1 for value in values], weights=counts)) if values else 0.0
    if profile.present >= 10 and share == 1:
        return "different text in every row, like an id"
    if profile.distinct > 20 and share > 0.5:
        return "free text, names or ids (most values occur once)"
    if profile.distinct > 20 and words >= 6 and share > 0.1:
        return "free text"
    if _ID.fullmatch(name.strip()) and profile.distinct > 20 and share > 0.3:
        return "called like an id"
    return None


def _note_strays(
    name: str, values: list[str], counts: npt.NDArray[np.int64], good: npt.NDArray[np.bool_], why: str, notes: list[str]
) -> None:
    stray = ~good & ~np.array([value.casefold() in _FLAGS for value in values], bool)
    if strays := [value for value, none in zip(values, stray, strict=True) if none]:
        notes.append(
            f"{int(counts[stray].sum())} values of {name!r} are no numbers ({listing(strays, 3)}): missing, {why}"
        )


def _doubt_numbers(name: str, column: pd.Series[Any], profile: Profile, notes: list[str]) -> None:
    values = column.to_numpy(np.float64)
    if infinite := int(np.isinf(values).sum()):
        notes.append(f"{infinite} values of {name!r} are infinite: taken as missing")
    for sentinel in _SENTINELS:
        at = values == sentinel
        if not at.any():
            continue
        others = values[~at & np.isfinite(values)]
        number = int(at.sum())
        if (
            number >= 2
            and len(others)
            and not (others.min() - np.ptp(others) <= sentinel <= others.max() + np.ptp(others))
        ):
            notes.append(
                f"{number} values of {name!r} are {sentinel:g}: if that is a mark of missing ones, "
                f"say --data.missing {sentinel:g}"
            )
    if profile.kind == "whole" and profile.rows >= 50 and profile.present == profile.rows:
        many = profile.distinct > 0.9 * profile.rows
        if many and values.min() >= 0 and values.max() >= 10_000 and name == "column_1":
            notes.append(f"{name!r} differs in nearly every row: if it names the rows, say --data.id-column {name}")


def _clean(text: str) -> str:
    text = text.strip().replace("−", "-").replace("\u00a0", " ").replace("\u202f", " ")
    if text.startswith("(") and text.endswith(")"):
        text = "-" + text[1:-1]
    text = re.sub(r"^([-+]?)\s*(?:[$€£¥₹]|USD|EUR|US\$)\s*", r"\1", text)
    text = re.sub(r"\s*(?:[$€£¥₹%‰]|EUR|USD)$", "", text)
    return re.sub(r"(?<=\d)[ '’](?=\d{3}(\D|$))", "", text)


def _number_style(
    values: Sequence[str],
    told: Literal["point", "comma"] | None = None,
    written: Literal[".", ","] | None = None,
) -> tuple[Literal[".", ","] | None, npt.NDArray[np.bool_]]:
    """The decimal sign of numbers as text, None where all have one comma before three digits; and which are numbers.

    Where both signs fit alike, the sign of the file decides.
    """
    cleaned = [_clean(value) for value in values]

    def fits(pattern: re.Pattern[str]) -> npt.NDArray[np.bool_]:
        return np.array(
            [bool(re.search(r"\d", text)) and pattern.fullmatch(text) is not None for text in cleaned], bool
        )

    point, comma = fits(_POINT), fits(_COMMA)
    with_comma = [text for text, good in zip(cleaned, point, strict=True) if good and "," in text]
    likelier = comma.sum() > point.sum() or (written == "," and comma.sum() == point.sum())
    if told == "comma" or (told is None and likelier):
        return ",", comma
    ambiguous = (
        told is None
        and comma.sum() == point.sum()
        and bool(with_comma)
        and not any(text.count(",") > 1 for text in with_comma)
    )
    return (None if ambiguous else "."), point


def _grouped(values: Sequence[str], decimal: str) -> str | None:
    """An example of numbers that have thousands apart, once each, so that the sign may as well be the decimal one."""
    sign = "," if decimal == "." else "."
    cleaned = [(value, _clean(value)) for value in values]
    grouped = [value for value, text in cleaned if re.fullmatch(rf"[-+]?[1-9]\d{{0,2}}\{sign}\d{{3}}", text)]
    clear = any(text.count(sign) > 1 or (sign in text and decimal in text) for _, text in cleaned)
    return grouped[0] if grouped and not clear else None


def to_number(text: str, decimal: str = ".") -> float:
    """A number as people write it, true and false as 1 and 0; NaN for what is none, or is infinite in float64.

    >>> to_number("$1,234.5"), to_number("12 %"), to_number("1.234,5", ","), to_number("x")
    (1234.5, 12.0, 1234.5, nan)
    """
    if (flag := _FLAGS.get(text.casefold())) is not None:
        return flag
    text = _clean(text)
    if not re.search(r"\d", text) or (_COMMA if decimal == "," else _POINT).fullmatch(text) is None:
        return float("nan")
    plain = text.replace(".", "").replace(",", ".") if decimal == "," else text.replace(",", "")
    number = float(plain)
    return number if math.isfinite(number) else math.nan


def _date(name: str, values: list[str], notes: list[str]) -> TableColumn | None:
    """A column of dates, if all its texts are dates of one format."""
    import pandas as pd

    sample = values[:2000]
    if not sample or not all(re.search(r"\d", value) and re.search(r"[-/.,: ]", value) for value in sample):
        return None
    if all(_ISO.fullmatch(value) for value in values):
        # "9999-12-31" for an open end: a date, but none that fits into nanoseconds
        values = [value for value in values if not _FAR_YEAR.match(value)] or values
        whole = pd.to_datetime(pd.Series(values), format="ISO8601", errors="coerce", utc=True)
        return TableColumn(name=name, kind="date") if bool(whole.notna().all()) else None
    values = [value for value in values if not _FAR_YEAR.search(value)] or values
    sample = values[:2000]
    fitting = []
    for day in _DATE_FORMATS:
        for time in _TIMES:
            first = pd.to_datetime(sample[0], format=day + time, errors="coerce")
            if pd.isna(first):
                continue
            texts = pd.Series(values, dtype="str")
            if bool(pd.to_datetime(texts, format=day + time, errors="coerce").notna().all()):
                fitting.append(day + time)
    if not fitting:
        return None
    choice = fitting[0]
    if len(fitting) > 1 and choice.startswith("%d/%m"):
        choice = next((form for form in fitting if form.startswith("%m/%d")), choice)
    if len({form[:2] for form in fitting}) > 1:
        first_of = "the month" if choice.startswith("%m") else "the day"
        notes.append(
            f"dates in {name!r} such as {values[0]!r} are taken with {first_of} first; every value fits either way"
        )
    return TableColumn(name=name, kind="date", date_format=choice)


def dates_or_numbers(column: pd.Series[Any], name: str) -> npt.NDArray[Any]:
    """A column that rows are ordered by: datetime64 or float64, without missing values.

    Raises:
        ValueError: for a column of anything else, and for rows without a value.
    """
    profile = profile_of(column)
    kind = _understand(name, column, profile, (), None, []) if profile.distinct else "empty"
    if not isinstance(kind, TableColumn) or kind.kind not in ("number", "date"):
        raise ValueError(f"column {name!r} (--data.time-column) holds neither numbers nor dates: name another")
    values, _ = _parse_column(column, kind, (), kind.decimal)
    if bad := int(np.isnat(values).sum() if kind.kind == "date" else np.isnan(values).sum()):
        raise ValueError(f"{bad} rows have no time in column {name!r} (--data.time-column): fill in")
    return np.asarray(values)


def parse_columns(
    raw: RawTable,
    columns: Sequence[TableColumn],
    missing: Sequence[str] = (),
    *,
    source: Mapping[str, str] | None = None,
    known: Known | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Feature columns as they are said to be read, each row by itself; and a line each for values that do not fit.

    Args:
        source: what columns are called in this table, where they are called otherwise.
        known: of new data, what training says of it.

    Raises:
        ValueError: for new data with another decimal sign than training had.
    """
    import pandas as pd
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    source = {column.name: column.name for column in columns} if source is None else source
    decimals = {column.name: _decimal_of(column, raw, known) for column in columns}

    def is_read(column: TableColumn) -> bool:
        # numbers that were read by another decimal sign are read again; of categories "1.10" and "1.1" differ
        values = raw.frame[source[column.name]]
        if column.kind == "number":
            return is_numeric_dtype(values) and (not raw.writing or raw.writing.decimal == decimals[column.name])
        return column.kind == "date" and is_datetime64_any_dtype(values)

    read = {column.name: is_read(column) for column in columns}
    texts = raw.texts(*dict.fromkeys(source[name] for name, done in read.items() if not done))
    parsed: dict[str, Any] = {}
    notes = []
    for column in columns:
        name, decimal = source[column.name], decimals[column.name]
        series = raw.frame[name] if read[column.name] else texts[name]
        cells = None if read[column.name] else raw.cells.get(name)
        if known is not None and column.kind == "number" and not read[column.name]:
            written = series if cells is None else series[~np.isfinite(cells)]
            notes += _check_decimal(column.name, [str(text) for text in written.unique()], decimal)
        parsed[column.name], bad = _parse_column(series, column, missing, decimal, cells)
        if bad:
            what = {
                "number": "no numbers",
                "boolean": f"neither {column.true} nor {column.false}",
                "date": f"no dates from {_YEARS[0]} to {_YEARS[1]}",
            }
            notes.append(f"{bad} values of {column.name!r} are {what[column.kind]}: taken as missing")
    return pd.DataFrame(parsed, copy=False), tuple(notes)


def _decimal_of(column: TableColumn, raw: RawTable, known: Known | None) -> Literal[".", ","]:
    """The decimal sign of training; where that read no text, the one of the file."""
    if raw.writing is None or column.decimal == "," or known is None or known.writing is not None:
        return column.decimal
    return raw.writing.decimal


def _check_decimal(name: str, values: list[str], decimal: Literal[".", ","]) -> list[str]:
    """Raise ValueError where most numbers have the other decimal sign; a note where that cannot be told."""
    other: Literal[".", ","] = "." if decimal == "," else ","
    own_form, other_form = (_COMMA, _POINT) if decimal == "," else (_POINT, _COMMA)
    cleaned = [_clean(value) for value in values]
    signed = [(value, text) for value, text in zip(values, cleaned, strict=True) if decimal in text or other in text]
    contrary = [value for value, text in signed if not own_form.fullmatch(text) and other_form.fullmatch(text)]
    agreeing = sum(own_form.fullmatch(text) is not None and not other_form.fullmatch(text) for _, text in signed)
    signs = {".": "point", ",": "comma"}
    if len(contrary) > agreeing:
        raise ValueError(
            f"column {name!r} holds {contrary[0]!r}, with a decimal {signs[other]}, but in training numbers had a "
            f"decimal {signs[decimal]}: write them so"
        )
    if (example := _grouped(values, decimal)) is not None:
        return [
            f"numbers in {name!r} such as {example!r} are taken with a {signs[other]} between thousands, since in "
            f"training they had a decimal {signs[decimal]}"
        ]
    return []


def _parse_column(
    series: pd.Series[Any],
    column: TableColumn,
    missing: Sequence[str],
    decimal: str,
    cells: npt.NDArray[np.float64] | None = None,
) -> tuple[Any, int]:
    """A column of numbers, dates or texts by its kind, and how many values did not fit.

    Args:
        cells: of a column of texts, those values that are numbers already.
    """
    import pandas as pd
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    if column.kind == "number" and is_numeric_dtype(series):
        values = series.to_numpy(np.float64)
        infinite = np.isinf(values)
        values = np.where(infinite, np.nan, values) if infinite.any() else values
        return _without_marks(values, missing), int(infinite.sum())
    if column.kind == "date" and is_datetime64_any_dtype(series):
        return _within_years(series), int((series.notna() & ~series.dt.year.between(*_YEARS)).sum())
    codes, uniques = pd.factorize(series)
    texts = [str(text) for text in uniques]
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    marks = {*MISSING_MARKS, *missing} - set(column.marks_kept)
    absent = np.array([text in marks for text in texts], bool)
    if column.kind == "category":
        kept = pd.Series([None if gone else text for text, gone in zip(texts, absent, strict=True)], dtype="str")
        return kept.reindex(codes).array, 0
    if column.kind == "date":
        stamps = pd.to_datetime(
            pd.Series(texts, dtype="str").where(~absent),
            format=column.date_format or "ISO8601",
            errors="coerce",
            utc=True,
        ).dt.tz_convert(None)
        days = pd.Series(_within_years(stamps))
        return days.reindex(codes).to_numpy(), int(counts[days.isna().to_numpy(bool) & ~absent].sum())
    if column.kind == "boolean":
        # frames hold codes as floats where one is missing
        meaning = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
        meaning |= {(column.true or "").casefold(): 1.0, (column.false or "").casefold(): 0.0}
        numbers = np.array([meaning.get(text.casefold(), np.nan) for text in texts], np.float64)
    else:
        numbers = np.array(
            [np.nan if gone else to_number(text, decimal) for text, gone in zip(texts, absent, strict=True)], np.float64
        )
    bad = np.isnan(numbers) & ~absent
    values, unfit = np.append(numbers, np.nan)[codes], np.append(bad, False)[codes]
    if cells is not None and column.kind == "number":
        given = np.isfinite(cells)
        values, unfit = np.where(given, cells, values), unfit & ~given
    return (_without_marks(values, missing) if column.kind == "number" else values), int(unfit.sum())


def _without_marks(values: npt.NDArray[np.float64], missing: Sequence[str]) -> npt.NDArray[np.float64]:
    """Numbers with NaN for those that mark missing values, however they are written."""
    marks = [value for value in map(to_number, missing) if not np.isnan(value)]
    return np.where(np.isin(values, marks), np.nan, values) if marks else values


def _within_years(stamps: pd.Series[Any]) -> npt.NDArray[Any]:
    """Dates as datetime64[ns], NaT for those that this cannot hold."""
    return np.asarray(stamps.where(stamps.dt.year.between(*_YEARS)).astype("datetime64[ns]").to_numpy())
