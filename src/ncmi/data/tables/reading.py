"""Files of tables, and frames from Python: read by pandas as they are written, without a decision on any column yet."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import stat
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ncmi.data.tables.arff import read_arff_head
from ncmi.data.tables.dialect import MISSING_MARKS, Dialect, Known, decide_header, sniff, to_utf8
from ncmi.data.tables.table import Writing
from ncmi.errors import listing, reason
from ncmi.recipes.data import TableData

if TYPE_CHECKING:
    import pandas as pd

SPREADSHEET_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it is written.

    Attributes:
        frame: numbers as int64 or float64 with NaN; dates as datetime64 where the file has a type for them; everything
            else text (pandas' str) without blanks around, NaN where empty. Index 0…N−1.
        numbers: ``[N]`` of each row in its file; rows that are empty throughout are left out and leave gaps.
        has_header: whether names stood in the file.
        nameless: those columns that were given their names here, beside a header.
        notes: what was understood and might have been understood otherwise; of new data, what is unlike training.
        categorical: columns that the file itself calls nominal.
        written: of columns by position, the texts as they are written, an empty one for none.
        writing: of delimited text, how it is written; None where numbers are numbers, such as in Parquet.
        cells: of columns of text, ``[N]`` float64 of those cells that were numbers all the same, NaN for others.
    """

    frame: pd.DataFrame
    numbers: npt.NDArray[np.int64]
    has_header: bool
    nameless: tuple[str, ...]
    notes: tuple[str, ...]
    categorical: tuple[str, ...]
    written: Callable[[Sequence[int]], pd.DataFrame]
    writing: Writing | None = None
    cells: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def nominal_last(self) -> bool:
        """Whether the last column is nominal by the file itself."""
        return bool(self.categorical) and self.categorical[-1] == self.frame.columns[-1]

    def texts(self, *names: str) -> pd.DataFrame:
        """Columns as text as they are written: "01" and "1" differ; nothing is an empty text."""
        if not names:
            return self.frame[[]]
        columns = list(self.frame.columns)
        # the parser reads in order of position
        positions = sorted({columns.index(name) for name in names})
        frame = self.written(positions)
        frame.columns = [columns[position] for position in positions]
        return frame[list(names)]


def read_raw_table(path: Path, options: TableData | None = None, known: Known | None = None) -> RawTable:
    """A table of delimited text (plain, .gz, .zip, .xz, .bz2), ARFF, Parquet, Feather or a spreadsheet.

    Args:
        options: the section of a recipe, of which only what is told of how a table is written is looked at.
        known: of new data, what training says of it.

    Raises:
        ValueError: for what cannot be read whole; the message names the place and the cure.
    """
    options = options or TableData(str(path))
    if not path.exists():
        raise ValueError("no such file: check the path")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise ValueError(f"{what}, not a table: give a file, such as a CSV")
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        magic = file.read(8)
    try:
        if magic.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
            return _of_columns(path, "read_parquet", known)
        if magic.startswith((b"ARROW1", b"FEA1")) or suffix in (".feather", ".arrow"):
            return _of_columns(path, "read_feather", known)
        if suffix in SPREADSHEET_SUFFIXES:
            return _of_spreadsheet(path, options, known)
        raw, name = _unpacked(path)
    except MemoryError as error:
        raise ValueError("the table does not fit into memory: give a part of it") from error
    if name.lower().endswith(SPREADSHEET_SUFFIXES):
        return _of_spreadsheet(io.BytesIO(raw), options, known)
    return _of_text(raw, Path(name).suffix.lower(), options, known)


def read_text_table(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table with a header as the texts that stand there, an empty field as empty text; "NA" stays as it is.

    The index keeps the numbers of the rows; rows that hold nothing are left out. With it comes what was understood and
    might have been understood otherwise.

    Raises:
        ValueError: as :func:`read_raw_table`.
    """
    # tables of texts have no options of their own, and nothing in them is taken for a number
    raw = read_raw_table(path, TableData(str(path), header="yes"), Known())
    texts = raw.texts(*map(str, raw.frame.columns))
    texts.columns = ["" if name in raw.nameless else str(name) for name in texts.columns]
    return texts.set_axis(raw.numbers, axis=0), raw.notes


def _unreadable(suffix: str, error: BaseException) -> ValueError:
    return ValueError(
        f"not a readable {suffix} table ({reason(error)}): check that the file is complete, and that no column name "
        "occurs twice"
    )


def _unpacked(path: Path) -> tuple[bytes, str]:
    """Bytes of a file, and of the one file in an archive; and its name without the ending of the archive."""
    raw = path.read_bytes()
    name = re.sub(r"\.(gz|zip|xz|bz2|z)$", "", path.name, flags=re.IGNORECASE)
    try:
        for magic, module in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
            if raw.startswith(magic):
                with module.open(io.BytesIO(raw)) as file:
                    return file.read(), name
        if raw.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                files = archive.namelist()
                if "[Content_Types].xml" in files:
                    return raw, f"{name}.xlsx"
                tables = [
                    file for file in files if not file.endswith("/") and not re.search(r"(^|/)(\.|__MACOSX)", file)
                ]
                if len(tables) != 1:
                    raise ValueError(
                        f"an archive of {len(tables)} files ({listing(tables, 4)}): give one with one table"
                    )
                return archive.read(tables[0]), tables[0]
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ValueError(
            f"a spreadsheet or archive that is damaged ({reason(error)}): save the table as CSV"
        ) from error
    if path.suffix.lower() in (".gz", ".zip", ".xz", ".bz2") and raw:
        raise ValueError(f"no {path.suffix.lower()} archive in spite of its ending: rename it, or fetch it again")
    return raw, name


def _of_text(raw: bytes, suffix: str, options: TableData, known: Known | None) -> RawTable:
    import pandas as pd

    data, note = to_utf8(raw, options.encoding, new=known is not None)
    del raw
    if not data.strip():
        raise ValueError("the file is empty: give a table with rows")
    notes = [note] if note else []
    arff = read_arff_head(data) if suffix == ".arff" or data[:8192].lower().lstrip().startswith(b"@relation") else None
    if arff is not None:
        numeric = tuple(kind == "numeric" for kind in arff.kinds)
        dialect = Dialect(",", arff.quote, ".", arff.names, len(arff.names), arff.start, "%", numeric, ())
    else:
        dialect = sniff(
            data,
            suffix=suffix,
            header=options.header,
            separator=options.separator,
            decimal=options.decimal,
            missing=options.missing,
            known=known,
        )
    body = data[dialect.start :]
    del data
    if dialect.comment and (body.startswith(dialect.comment.encode()) or b"\n" + dialect.comment.encode() in body):
        body = b"\n".join(line for line in body.split(b"\n") if not line.startswith(dialect.comment.encode()))
    frame = _parse(body, dialect, options)
    keep = _not_empty(frame)
    rows = np.flatnonzero(keep).astype(np.int64)
    frame = frame if len(rows) == len(keep) else frame[keep].reset_index(drop=True)
    if len(frame) == 0:
        raise ValueError("the table has no rows: give at least one below the header")
    _check_widths(frame, body, dialect)
    notes += dialect.notes
    frame, nameless, kept = _named(frame, dialect.names, known)
    if len(rows) < len(keep):
        notes.append(f"{len(keep) - len(rows)} rows without any value are left out")

    def written(positions: Sequence[int]) -> pd.DataFrame:
        # text is there as it is written; numbers are read once more
        numbers = [kept[position] for position in positions if dialect.numeric[kept[position]]]
        texts = _parse(body, dialect, options, numbers) if numbers else None
        if texts is not None and len(rows) < len(keep):
            texts = texts[keep].reset_index(drop=True)
        return pd.DataFrame(
            {
                position: frame.iloc[:, position].fillna("")
                if texts is None or kept[position] not in texts
                else texts[kept[position]]
                for position in positions
            }
        )

    nominal = (
        tuple(name for name, kind in zip(arff.names, arff.kinds, strict=True) if kind == "nominal") if arff else ()
    )
    # numbers of ARFF have a point whatever stands there
    writing = None if arff else Writing(separator=dialect.separator, quote=dialect.quote, decimal=dialect.decimal)
    return RawTable(frame, rows, dialect.names is not None, nameless, tuple(notes), nominal, written, writing)


def _parse(body: bytes, dialect: Dialect, options: TableData, as_text: list[int] | None = None) -> pd.DataFrame:
    """Rows of a text, all columns by what is in them, or some of them as the texts that stand there."""
    import pandas as pd

    marks = [*MISSING_MARKS, *options.missing]
    blanks = dialect.separator == " "
    arguments: dict[str, Any]
    if as_text is None:
        arguments = {
            "dtype": {i: "str" for i, numeric in enumerate(dialect.numeric) if not numeric},
            "na_values": {i: marks if numeric else [""] for i, numeric in enumerate(dialect.numeric)},
            "decimal": dialect.decimal,
        }
    else:
        arguments = {"dtype": "str", "usecols": as_text, "na_filter": False}
    try:
        with warnings.catch_warnings():
            # pandas only warns when it drops fields beyond the header
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame: pd.DataFrame = pd.read_csv(
                io.BytesIO(body),
                sep=r"\s+" if blanks else dialect.separator,
                header=None,
                names=range(dialect.width),
                index_col=False,
                keep_default_na=False,
                quotechar=dialect.quote,
                skipinitialspace=not blanks,
                low_memory=False,
                encoding="utf-8",
                encoding_errors="surrogatepass",
                **arguments,
            )
    except pd.errors.EmptyDataError as error:
        raise ValueError("the table has no rows: give at least one below the header") from error
    except (ValueError, OSError, pd.errors.ParserWarning, pd.errors.ParserError) as error:
        _check_each_width(body, dialect)
        raise ValueError(f"the rows cannot be read ({reason(error)}): is a quote left open?") from error
    for name in range(dialect.width) if as_text is None else as_text:
        column = frame[name]
        if column.dtype == bool or column.dtype == object:
            column = _parse(body, dialect, options, [name])[name]
            frame[name] = column.where(column != "")
        if not pd.api.types.is_numeric_dtype(column):
            frame[name] = column.astype("str").str.strip()
            if as_text is None:
                frame[name] = frame[name].where(frame[name] != "")
    return frame


def _not_empty(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    last = frame[frame.columns[-1]].isna().to_numpy(bool)
    if not last.any():
        return ~last
    keep = ~last
    keep[last] = frame[last].notna().any(axis=1).to_numpy(bool)
    return keep


def _check_widths(frame: pd.DataFrame, body: bytes, dialect: Dialect) -> None:
    """The parser fills short rows with missing values; such a row misses the last one at least."""
    if bool(frame[dialect.width - 1].isna().any()):
        _check_each_width(body, dialect)


def _check_each_width(body: bytes, dialect: Dialect) -> None:
    text = body.decode("utf-8", "surrogatepass")
    if dialect.separator == " ":
        text = "\n".join(line.strip().replace("\t", " ") for line in text.split("\n"))
    above = None
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=dialect.separator, quotechar=dialect.quote, skipinitialspace=True
    )
    # names that end before the rows do: separators at the end of rows
    least = dialect.width
    names = list(dialect.names or ())
    while names and not names[-1]:
        names.pop()
        least -= 1
    try:
        for row in reader:
            filled = len(row)
            while filled > dialect.width and not row[filled - 1].strip():
                filled -= 1
            if not any(field.strip() for field in row) or least <= filled <= dialect.width:
                above = reader.line_num
                continue
            raise ValueError(
                f"row {reader.line_num if above is None else above + 1} below the header has {filled} fields in "
                f"place of {dialect.width}: mend that line (a field that holds {dialect.separator!r} needs quotes)"
                if dialect.names
                else f"line {reader.line_num} has {filled} fields in place of {dialect.width}: mend that line "
                f"(a field that holds {dialect.separator!r} needs quotes)"
            )
    except csv.Error as error:
        raise ValueError(
            f"a row near line {reader.line_num} cannot be read ({error}): is a quote left open?"
        ) from error


def _named(
    frame: pd.DataFrame, names: tuple[str, ...] | None, known: Known | None
) -> tuple[pd.DataFrame, tuple[str, ...], list[int]]:
    """The frame with names of columns; those that were given here, and the positions that are kept."""
    width = frame.shape[1]
    written = list(names) if names is not None else [f"column_{i + 1}" for i in range(width)]
    # separators at the end of rows make columns without name and without value
    kept = [i for i in range(width) if written[i] or frame[i].notna().any()]
    for i, name in zip(kept, _distinct([written[i] for i in kept], known), strict=True):
        written[i] = name
    nameless = []
    for i in kept:
        if not written[i]:
            written[i] = f"column_{i + 1}"
            nameless.append(written[i])
        elif re.fullmatch(r"Unnamed: \d+", written[i]):
            nameless.append(written[i])
    frame = frame[kept] if len(kept) < width else frame
    frame.columns = [written[i] for i in kept]
    return frame, tuple(nameless), kept


def _distinct(names: Sequence[str], known: Known | None) -> list[str]:
    """Names of columns, an empty one for none; of new data, columns of one name that nothing looks for are numbered.

    Raises:
        ValueError: for columns of one name.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if wanted := [name for name in twice if known is None or not known.names or name in known.names]:
        raise ValueError(f"{listing(wanted)} names more than one column: give each a name of its own")
    taken, distinct = {*names}, []
    counts: Counter[str] = Counter()
    for name in names:
        free = name
        while name and counts[name] and free in taken:
            counts[name] += 1
            free = f"{name} ({counts[name]})"
        counts[name] += not counts[name]
        taken.add(free)
        distinct.append(free)
    return distinct


def _of_columns(path: Path, reader: Literal["read_parquet", "read_feather"], known: Known | None) -> RawTable:
    import pandas as pd

    try:
        frame = getattr(pd, reader)(path)
    except (ValueError, OSError, KeyError, ImportError, NotImplementedError) as error:
        raise _unreadable(path.suffix.lower() or reader.removeprefix("read_"), error) from error
    # in the file an index that has a name is a column among others
    return raw_table_from_frame(frame, known, [str(name) for name in frame.index.names if name is not None])


def raw_table_from_frame(frame: Any, known: Known | None = None, of_index: Collection[str] = ()) -> RawTable:
    """A pandas frame, or another library's (polars) that can be turned into one, without its index.

    Args:
        frame: its names become text without blanks around.
        known: of new data, what training says of it; columns that it does not name may hold anything.
        of_index: names of index levels that are columns after all, where no column is called so.

    Raises:
        ValueError: for what is no frame, or columns of one name.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        if hasattr(frame, "to_pandas"):
            frame = frame.to_pandas()
        elif hasattr(frame, "__dataframe__"):
            frame = pd.api.interchange.from_dataframe(frame)
        else:
            raise ValueError(f"{type(frame).__name__} is no table: give a pandas or polars frame")
    frame = without_index(frame, of_index)
    frame.columns = _distinct(column_names(frame), known)
    if len(frame) == 0 or frame.shape[1] == 0:
        raise ValueError("the table has no rows: give at least one")
    nominal = [str(name) for name, kind in frame.dtypes.items() if isinstance(kind, pd.CategoricalDtype)]
    given = frame
    names = set(known.names if known is not None and known.names else given.columns)
    cure = "leave it out (--data.drop)" if known is None else "give one value a row"
    columns = {name: _plain(given[name], cure) if name in names else given[name] for name in given.columns}
    cells = {
        name: _numbers_among(given[name]) for name in names & {*given.columns} if _is_mixed(columns[name], given[name])
    }
    nameless = tuple(name for name in given.columns if not name or re.fullmatch(r"Unnamed: \d+", name))

    def written(positions: Sequence[int]) -> pd.DataFrame:
        return pd.DataFrame({position: _as_written(given.iloc[:, position]) for position in positions})

    numbers = np.arange(len(given), dtype=np.int64)
    return RawTable(pd.DataFrame(columns), numbers, True, nameless, (), tuple(nominal), written, cells=cells)


def _is_mixed(plain: pd.Series[Any], given: pd.Series[Any]) -> bool:
    """Whether a column became text, although its cells may be numbers."""
    import pandas as pd

    return given.dtype == object and pd.api.types.is_string_dtype(plain)


def _numbers_among(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Cells that are numbers, not texts of such; NaN for others."""

    def number(cell: Any) -> float:
        if not isinstance(cell, (int, float, np.integer, np.floating)) or isinstance(cell, bool):
            return np.nan
        try:
            return float(cell)
        except OverflowError:
            return np.nan

    return np.array([number(cell) for cell in column], np.float64)


def column_names(frame: pd.DataFrame) -> list[str]:
    """What a table calls the columns of a frame: text without blanks around; names of several levels are joined."""
    return [("_".join(map(str, name)) if frame.columns.nlevels > 1 else str(name)).strip() for name in frame.columns]


def without_index(frame: pd.DataFrame, of_index: Collection[str] = ()) -> pd.DataFrame:
    """A frame whose index numbers its rows; levels that are asked for by name become columns, where none has the name.

    An index says which row is which, as scikit-learn takes it: as a feature it could give the label away.
    """
    names = [name for name in frame.index.names if name is not None]
    levels = [name for name in names if str(name) in of_index and name not in frame.columns]
    return (frame.reset_index(level=levels) if levels else frame).reset_index(drop=True)


def _plain(column: pd.Series[Any], cure: str) -> Any:
    """A column as numbers, dates or text; the cure is for values that are none of these."""
    import pandas as pd

    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        column = column.astype(kind.categories.dtype if kind.categories.dtype.kind in "iuf" else object)
    if pd.api.types.is_bool_dtype(column) or isinstance(column.dtype, pd.BooleanDtype):
        return _as_written(column).replace("", np.nan).astype("str")
    if pd.api.types.is_complex_dtype(column):
        raise ValueError(f"column {column.name!r} holds complex numbers: give their parts as columns")
    if pd.api.types.is_numeric_dtype(column):
        whole = pd.api.types.is_integer_dtype(column) and not column.isna().any()
        return column.astype(np.int64 if whole and column.dtype.kind != "u" else np.float64)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert(None)
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    if pd.api.types.is_timedelta64_dtype(column):
        return column.dt.total_seconds()
    values = column.dropna()
    if len(values) and all(
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values
    ):
        try:
            return pd.to_numeric(column).astype(np.float64)
        except OverflowError as error:
            raise ValueError(
                f"column {column.name!r} holds numbers beyond float64: give them in another unit"
            ) from error
    if len(values) and type(values.iloc[0]).__name__ in ("date", "datetime", "Timestamp"):
        try:
            return pd.to_datetime(column)
        except (ValueError, TypeError):
            pass
    if len(values) and type(values.iloc[0]).__name__ == "Decimal":
        return pd.to_numeric(column, errors="coerce").astype(np.float64)
    if bad := [value for value in values.iloc[:1000] if isinstance(value, (list, dict, tuple, set, np.ndarray))]:
        raise ValueError(
            f"column {column.name!r} holds {type(bad[0]).__name__}s, not one value a row: spread it over columns, or "
            f"{cure}"
        )
    texts = _as_written(column)
    return texts.where(texts != "")


def _as_written(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    missing = column.isna().to_numpy(bool)
    if pd.api.types.is_float_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        whole = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53)
        if bool((whole | missing).all()):
            integers = pd.Series(np.where(missing, 0, values).astype(np.int64)).astype("str")
            return integers.where(~missing, "")
    texts = pd.Series(
        [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in column.astype(object)
        ],
        dtype="str",
    )
    return texts.str.strip().where(~missing, "")


def _of_spreadsheet(source: Path | io.BytesIO, options: TableData, known: Known | None) -> RawTable:
    import pandas as pd

    try:
        with pd.ExcelFile(source, engine="calamine") as book:
            names = [str(name) for name in book.sheet_names]
            sheet = names[0] if options.sheet is None and names else options.sheet
            if sheet not in names:
                asked = "--data.sheet" if known is None else "of training"
                raise ValueError(f"no sheet {sheet!r} ({asked}): there is {listing(names)}")
            cells = pd.read_excel(book, sheet_name=sheet, header=None, dtype=object)
    except ImportError as error:
        raise ValueError(
            "spreadsheets need python-calamine: pip install 'ncmi[excel]', or save the table as CSV"
        ) from error
    except ValueError:
        raise
    except Exception as error:  # what the reader raises of damaged files is of no common kind
        raise _unreadable("spreadsheet", error) from error
    notes = (
        [f"sheet {sheet!r} is read, of {listing(names)}" + ("; otherwise say --data.sheet" if known is None else "")]
        if len(names) > 1 and options.sheet is None
        else []
    )
    cells = cells.dropna(how="all").dropna(how="all", axis=1)
    if cells.empty:
        cure = "name another with --data.sheet" if known is None else "put the rows there"
        raise ValueError(f"sheet {sheet!r} is empty: {cure}")
    numbers = cells.index.to_numpy(np.int64)
    cells = cells.reset_index(drop=True)
    cells.columns = pd.RangeIndex(cells.shape[1])
    rows = [
        ["" if pd.isna(cell) else str(cell).strip() for cell in row] for row in cells.head(500).itertuples(index=False)
    ]
    marks = {*MISSING_MARKS, *options.missing}
    above = 0
    while above < min(20, len(rows) - 1) and cells.shape[1] >= 3 and sum(map(bool, rows[above])) == 1:
        notes.append(f"the line {listing([t for t in rows[above] if t])} above the table is left out")
        above += 1
    is_header = options.header == "yes"
    if options.header == "auto":
        is_header, evidence = decide_header(rows[above:], cells.shape[1], ".", marks, known)
        notes += [evidence] if known is None else []
    names_here = rows[above] if is_header else [f"column_{i + 1}" for i in range(cells.shape[1])]
    nameless = [f"column_{i + 1}" for i, name in enumerate(names_here) if not name]
    above += is_header
    frame = cells.iloc[above:].reset_index(drop=True)
    frame.columns = [name or f"column_{i + 1}" for i, name in enumerate(names_here)]
    table = raw_table_from_frame(
        frame.apply(lambda column: column.map(lambda c: c.strip() if isinstance(c, str) else c)), known
    )
    rows_of_file = numbers[above:] - numbers[above]
    return replace(
        table, numbers=rows_of_file, has_header=is_header, nameless=tuple(nameless), notes=tuple(notes), categorical=()
    )
