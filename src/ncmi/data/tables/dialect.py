"""How a table of delimited text is written: encoding, separator, quotes, decimal sign, header; all by evidence."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ncmi.data.tables.table import Writing
from ncmi.errors import listing

MISSING_MARKS = (
    *("", "?", "NA", "N/A", "n/a", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "-", "--", ".", "#N/A"),
    *("#NA", "NaT", "#VALUE!", "#DIV/0!"),
)
"""What usually stands for a missing value; whether a mark is a value of a column of categories is decided there."""
_SAMPLE_BYTES = 1 << 20
_SAMPLE_ROWS = 3000
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
_GROUPED_POINT = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "koi8_r", "mac_roman", "gb18030", "big5", "cp932", "euc_jp", "euc_kr", "cp949"),
)


@dataclass(frozen=True)
class Known:
    """What is known of a table before it is read, since it is new data for columns that have been understood.

    No option tells how such a table is read, so that errors and notes name none.

    Attributes:
        names: of the columns that are looked for; none where columns go by their places.
        writing: of the text file of training; None where it was no text.
    """

    names: tuple[str, ...] = ()
    writing: Writing | None = None


@dataclass(frozen=True)
class Dialect:
    """How the rows of a text are written.

    Attributes:
        separator: one sign; a blank for runs of blanks and tabs.
        quote: sign around fields that hold a separator or a new line.
        decimal: point or comma.
        names: of the columns by the header, empty where one has no name; None without a header.
        width: number of fields in a row.
        start: byte at which the rows begin, after what stands above them.
        comment: sign that begins lines to leave out; None where there are none.
        numeric: of each column, whether it holds numbers as far as the first rows show.
        notes: what was understood and might have been understood otherwise.
    """

    separator: str
    quote: str
    decimal: Literal[".", ","]
    names: tuple[str, ...] | None
    width: int
    start: int
    comment: str | None
    numeric: tuple[bool, ...]
    notes: tuple[str, ...]


def to_utf8(raw: bytes, encoding: str | None = None, *, new: bool = False) -> tuple[bytes, str | None]:
    """A text's bytes in UTF-8 without byte-order mark and with plain line ends; and a note where it was not UTF-8.

    Args:
        new: whether it is new data, which has no options of its own.

    Raises:
        ValueError: for what is no text, or not in the encoding asked for.
    """
    note = None
    if encoding is None:
        encoding = _encoding(raw, "save it as UTF-8" if new else "give it with --data.encoding")
        if encoding not in ("utf-8", "utf-8-sig"):
            otherwise = "save it as UTF-8" if new else "say --data.encoding"
            note = f"the text is taken as {encoding}; otherwise {otherwise}"
    is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
    try:
        text = raw.decode("utf-8" if is_utf8 else encoding)
    except LookupError as error:
        raise ValueError(f"no encoding {encoding!r} (--data.encoding): such as utf-8, utf-16 or latin-1") from error
    except UnicodeDecodeError as error:
        cure = "save it so, as training was" if new else "give the right one with --data.encoding"
        raise ValueError(f"not {encoding.upper()} ({error.reason} at byte {error.start}): {cure}") from error
    data = raw if is_utf8 else text.encode("utf-8", "surrogatepass")
    del text
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise ValueError(f"line {line} holds a NUL byte: no table of text, or a damaged one")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.removeprefix(b"\xef\xbb\xbf"), note


def _encoding(raw: bytes, cure: str) -> str:
    for mark, name in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if raw.startswith(mark):
            return name
    head = raw[:4096]
    for start, name in ((0, "utf-16-be"), (1, "utf-16-le")):
        # of plain text every second byte is zero
        if (
            len(head) >= 4
            and head[start::2].count(0) > 0.4 * len(head[start::2])
            and head[1 - start :: 2].count(0) == 0
        ):
            return name
    if sum(0 < byte < 32 and byte not in b"\t\n\r\f\x1a\x1b" for byte in head) > 0.02 * len(head):
        raise ValueError("no table of text: it holds control characters; give a CSV, Parquet, Feather or .xlsx file")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8"
    from charset_normalizer import from_bytes

    lines = [line for line in raw[: 1 << 24].split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:100_000]
    if _is_western(sample):
        return "cp1252"
    match = from_bytes(sample, cp_isolation=list(_ENCODINGS)).best()
    if match is None:
        raise ValueError(f"neither UTF-8 nor another usual encoding of text: {cure}")
    return "cp1252" if "cp1252" in (match.encoding, *match.could_be_from_charset) else str(match.encoding)


def _is_western(sample: bytes) -> bool:
    """Whether a text reads as words with few accents; of short texts, statistics of bytes take that for anything."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    accents = sum(not sign.isascii() for word in words for sign in word)
    usual = re.fullmatch(r"[\x00-\x7fÀ-ÖØ-öø-ÿŠšŽžŒœ€‚„…‰‹›‘’“”•–—™¡¢£¥§©ª«¬®°±²³´µ¶·¹º»¼½¾¿×÷\xa0]*", text)
    return usual is not None and accents <= 0.5 * sum(map(len, words))


def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a field is a plain number.

    >>> is_number("1e3"), is_number("1,5"), is_number("1,5", ","), is_number("A1")
    (True, False, True, False)
    """
    text = text.strip()
    return _NUMBER.fullmatch(text.replace(",", ".") if decimal == "," else text) is not None or text.lower() in (
        *("inf", "-inf", "+inf", "infinity"),
    )


@dataclass
class _Sample:
    """The first rows of a text, and how they were cut."""

    rows: list[list[str]]
    ends: list[int]  # line at which each row ends, counted from 1
    widths: Counter[int] = field(init=False)

    def __post_init__(self) -> None:
        self.widths = Counter(map(len, self.rows))

    @property
    def width(self) -> int:
        return max(self.widths, key=lambda width: (self.widths[width], width)) if self.widths else 0

    @property
    def share(self) -> float:
        """Of the rows with the usual number of fields, a title above them aside."""
        above = next((i for i, row in enumerate(self.rows[:20]) if len(row) > 1), 0)
        return self.widths[self.width] / max(len(self.rows) - above, 1)


def _cut(text: str, separator: str, quote: str) -> _Sample:
    rows, ends = [], []
    if separator == " ":
        text = "\n".join(line.strip().replace("\t", " ") for line in text.split("\n"))
    # two blanks and a quote: a blank is a separator of its own to csv, which skips those that follow it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote, skipinitialspace=True)
    try:
        for row in reader:
            if any(text.strip() for text in row):
                rows.append([text.strip() for text in row])
                ends.append(reader.line_num)
            if len(rows) >= _SAMPLE_ROWS:
                break
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} cannot be cut into fields ({error}): is a quote left open?"
        ) from error
    return _Sample(rows, ends)


def sniff(
    data: bytes,
    *,
    suffix: str = "",
    header: Literal["auto", "yes", "no"] = "auto",
    separator: str | None = None,
    decimal: Literal["point", "comma"] | None = None,
    missing: Sequence[str] = (),
    known: Known | None = None,
) -> Dialect:
    """How a text in UTF-8 is written, by its first megabyte; what is given is not guessed.

    Args:
        known: of new data; it is read as training was, so that what a row means does not depend on the others.

    Raises:
        ValueError: for an empty text, or a header that nothing decides on.
    """
    head = data[:_SAMPLE_BYTES]
    if len(data) > _SAMPLE_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head
    text = head.decode("utf-8", "replace")
    notes: list[str] = []
    of_new: list[str] = []
    start, comment, named, commented = _start(text)
    separator = {"tab": "\t", "blanks": " ", "blank": " ", "space": " ", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and len(separator) != 1:
        raise ValueError(f"separator {separator!r} (--data.separator): give one sign, 'tab' or 'blanks'")
    original = text
    if comment:
        text = text[:start] + _without(comment, text[start:])
    body = text[start:]
    if not body.strip():
        raise ValueError("the table has no rows: give at least one below the header" if text.strip() else "empty file")
    separator = separator or named
    separator, quote, sample = _cut_by(known, body, separator, suffix)
    if comment:
        lines = [line for line in original.split("\n") if line.startswith(comment)]
        alike = [row for row in _cut("\n".join(lines), separator, quote).rows if len(row) == sample.width]
        if known is not None:  # even a single one may be a row, unless it names the columns
            alike = [row for row in alike if not {text.lstrip(f"{comment} ") for text in row} & {*known.names}]
        if len(alike) > max(1 if known is None else 0, 0.5 * len(lines)):
            # rows, such as of colors like #ff0000
            comment, commented, start, body = None, "", 0, original
            separator, quote, sample = _cut_by(known, body, separator, suffix)
        else:
            of_new.append(f"lines that begin with {comment!r} are left out")
    trained = known.writing if known else None
    if trained and separator != trained.separator:
        of_new.append(f"fields are separated by {separator!r}, in training by {trained.separator!r}")
    sign: Literal[".", ","]
    if decimal:
        sign = "," if decimal == "comma" else "."
    elif trained:
        sign = trained.decimal
    else:
        sign = _decimal(sample, separator)
        if sign == ",":
            notes.append("decimal numbers are taken as written with a comma; otherwise say --data.decimal point")
    marks = {*MISSING_MARKS, *missing}
    skipped = _preamble(sample)
    if skipped:
        first = " ".join(sample.rows[0])[:60]
        title = "the first line is" if skipped == 1 else f"the first {skipped} lines are"
        of_new.append(f"{title} no part of the table: {first!r}")
    rows = sample.rows[skipped:]
    width, names_of_first = _align(rows, sample.width)
    commented_names = _names_in_comment(commented, separator, quote, width) if header != "no" else None
    is_header = False
    if header == "yes":
        is_header = commented_names is None
    elif header == "auto" and commented_names is None:
        is_header, evidence = decide_header(rows, width, sign, marks, known)
        notes.append(evidence)
    names = None
    if commented_names is not None:
        names = commented_names
        of_new.append("the names of the columns stand in a comment")
    elif is_header:
        names = names_of_first
        if len(rows[0]) < width and names[0] == rows[0][0] and any(any(row[len(rows[0]) :]) for row in rows[1:]):
            longest = next(row for row in rows[1:] if any(row[len(rows[0]) :]))
            raise ValueError(
                f"the header has {len(rows[0])} fields ({listing(rows[0], 4)}), a row below it {len(longest)} "
                f"({listing(longest, 4)}): give every column a name, or quote fields that hold {separator!r}"
            )
    above = skipped + (1 if is_header else 0)
    values = sample.rows[above:]
    end = sample.ends[above - 1] if above else 0
    above_rows = original.count("\n", 0, start) + end
    if codes := [i for i in range(width) if _are_codes([row[i] for row in values if i < len(row)])]:
        called = [names[i] if names and names[i] else f"column_{i + 1}" for i in codes]
        notes.append(
            f"{listing(called, 6)} holds codes with zeros in front, taken as numbers; otherwise say --data.categorical"
        )
    numeric = tuple(_is_numeric([row[i] for row in values if i < len(row)], sign, marks) for i in range(width))
    if not decimal and sign == "." and (thousands := _perhaps_thousands(values, numeric, separator)):
        called = [names[i] if names and names[i] else f"column_{i + 1}" for i in thousands]
        notes.append(
            f"numbers in {listing(called, 6)} such as {thousands[min(thousands)]!r} are taken with a decimal point; "
            "where it stands between thousands, say --data.decimal comma"
        )
    return Dialect(
        separator, quote, sign, names, width, _after_lines(data, above_rows), comment, numeric,
        (*of_new, *(notes if known is None else ())),
    )  # fmt: skip


def _perhaps_thousands(rows: list[list[str]], numeric: tuple[bool, ...], separator: str) -> dict[int, str]:
    """Columns whose every point stands before three digits, with an example; none where any other point is decimal."""
    if separator == ",":  # which is no decimal sign then
        return {}
    found: dict[int, str] = {}
    for row in rows:
        for i, value in enumerate(row[: len(numeric)]):
            if numeric[i] and "." in value and is_number(value):
                if not _GROUPED_POINT.fullmatch(value):
                    return {}
                found.setdefault(i, value)
    return found


def _after_lines(data: bytes, lines: int) -> int:
    position = 0
    for _ in range(lines):
        position = data.find(b"\n", position) + 1
        if position == 0:
            return len(data)
    return position


def _start(text: str) -> tuple[int, str | None, str | None, str]:
    """Where the first row begins, the sign of comments, a separator that is named, and the comment above that row."""
    position, comment, separator, last, start = 0, None, None, "", None
    for _ in range(50):
        end = text.find("\n", position)
        line = text[position : len(text) if end < 0 else end]
        if start is None and (match := re.fullmatch(r'"?sep=(.)"?\s*', line)):  # written by spreadsheets
            separator = match[1]
        elif line[:1] in ("#", "%") and comment in (None, line[0]) and not re.match(r".[,;\t|]", line):
            comment = line[0]
            last = line[1:].strip() if start is None else last
        elif line.strip() and start is None:
            start = position
        if end < 0:
            break
        position = end + 1
    return (len(text) if start is None else start), comment, separator, last


def _without(comment: str, text: str) -> str:
    """A text with empty lines in place of comments, so that lines keep their numbers."""
    return "\n".join("" if line.startswith(comment) else line for line in text.split("\n"))


def _choose_cut(text: str, separator: str | None, suffix: str) -> tuple[str, str, _Sample]:
    def best_quote(sign: str) -> tuple[str, _Sample]:
        sample = _cut(text, sign, '"')
        fields = [value for row in sample.rows[:200] for value in row]
        single = sum(len(value) > 1 and value[0] == value[-1] == "'" for value in fields)
        if single > 0.3 * len(fields) or (single and _cut(text, sign, "'").share > sample.share):
            return "'", _cut(text, sign, "'")
        return '"', sample

    if separator is not None:
        quote, sample = best_quote(separator)
        return separator, quote, sample
    cuts = {sign: best_quote(sign) for sign in ",;\t| "}
    regular = [sign for sign, (_, cut) in cuts.items() if cut.width > 1 and cut.share >= 0.9]
    if suffix in (".tsv", ".tab") and cuts["\t"][1].width > 1:
        choice = "\t"
    elif decimals := [
        sign
        for sign in regular
        if sign != ","
        and "," in regular
        and _decimal(cuts[sign][1], sign) == ","
        and not _ends_in_commas(cuts[sign][1])
    ]:
        choice = decimals[0]
    elif strict := [sign for sign in regular if sign != " "]:
        # of "a;b" above "1,234;50" the first line says where to cut
        choice = max(strict, key=lambda sign: (cuts[sign][1].width, len(cuts[sign][1].rows[0]) == cuts[sign][1].width))
    elif regular:
        choice = " "
    else:
        wide = [sign for sign, (_, cut) in cuts.items() if max(cut.widths, default=0) > 1 and sign != " "]
        # one row of text with blanks is no table of words
        choice = max(wide, key=lambda sign: (cuts[sign][1].width > 1, cuts[sign][1].share), default=",")
    return choice, *cuts[choice]


def _cut_by(known: Known | None, text: str, separator: str | None, suffix: str) -> tuple[str, str, _Sample]:
    """The cut of training, if it yields the columns that are looked for; else the likeliest."""
    if separator is None and known is not None and known.writing is not None:
        writing = known.writing
        try:
            sample = _cut(text, writing.separator, writing.quote)
        except ValueError:
            return _choose_cut(text, separator, suffix)
        names = set(known.names)
        named = any(len(names & set(row)) >= 0.5 * len(names) for row in sample.rows[:20])
        nameless = all(re.fullmatch(r"column_\d+", name) for name in names)
        # the label may be missing
        if named or (nameless and sample.width >= len(names) - 1):
            return writing.separator, writing.quote, sample
    return _choose_cut(text, separator, suffix)


def _ends_in_commas(sample: _Sample) -> bool:
    """Whether fields begin or end with a comma, as where a table of commas with blanks around them is cut at these."""
    fields = [value for row in sample.rows[:500] for value in row]
    return sum(value[:1] == "," or value[-1:] == "," for value in fields) > 0.1 * len(fields)


def _decimal(sample: _Sample, separator: str) -> Literal[".", ","]:
    if separator == ",":
        return "."
    fields = [value for row in sample.rows[:500] for value in row]
    commas = [value for value in fields if _DECIMAL_COMMA.fullmatch(value)]
    # beside decimal commas, "1.234" is a thousand
    points = any(re.fullmatch(r"[-+]?\d*\.\d+", value) and not _GROUPED_POINT.fullmatch(value) for value in fields)
    # "1,234" alone is a thousand as well as a fraction: left to whoever looks at the column
    decided = any(not re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", value) for value in commas)
    return "," if decided and not points else "."


def _preamble(sample: _Sample) -> int:
    """Number of lines above the table, such as a title: of one field, where rows have three or more."""
    count = 0
    while (
        count < min(len(sample.rows) - 1, 20) and len([v for v in sample.rows[count] if v]) == 1 and sample.width >= 3
    ):
        count += 1
    return count if count and len(sample.rows[count]) >= sample.width - 1 else 0


def _align(rows: list[list[str]], width: int) -> tuple[int, tuple[str, ...]]:
    """Number of fields in a row; and the first row as names, where it has one more or less than the others."""
    first, others = list(rows[0]), rows[1:]
    longest = max(map(len, rows))
    if longest > width and all(not any(row[width:]) for row in rows):
        width = longest
    if len(others) >= 5 and len(first) == width - 1 and all(len(row) >= width for row in others):
        last_empty = all(not row[width - 1] for row in others if len(row) >= width)
        column = [row[0] for row in others]
        numbered = [str(start + i) for start in (0, 1) for i in range(len(column))]
        is_index = column in (numbered[: len(column)], numbered[len(column) :])
        if not last_empty and (is_index or not any(map(is_number, column))):
            first.insert(0, "")
    first += [""] * (width - len(first))
    return width, tuple(first)


def _names_in_comment(comment: str, separator: str, quote: str, width: int) -> tuple[str, ...] | None:
    if not comment:
        return None
    rows = _cut(comment, separator, quote).rows
    if len(rows) != 1 or len(rows[0]) != width or any(map(is_number, rows[0])) or not all(rows[0]) or width < 2:
        return None
    return tuple(rows[0])


def _are_codes(values: list[str]) -> bool:
    """Whether numbers are written like codes: of one length, some with a zero in front."""
    lengths = {len(value) for value in values if value}
    codes = [value for value in values if value.isdecimal()]
    return len(lengths) == 1 and len(codes) > 0.9 * len(values) and any(re.match(r"0\d", value) for value in codes)


def _is_numeric(values: list[str], decimal: str, marks: set[str]) -> bool:
    values = [value for value in values if value not in marks]
    return sum(is_number(value, decimal) for value in values) >= 0.9 * len(values)


def decide_header(
    rows: list[list[str]], width: int, decimal: str, marks: set[str], known: Known | None = None
) -> tuple[bool, str]:
    """Whether the first row names the columns, and why.

    A column of numbers under a word is evidence for a header. A number over numbers, or a word that occurs again
    below, is evidence against it.

    Args:
        known: of new data; where its columns have names, these tell the header.

    Raises:
        ValueError: where both are so likely that a guess would risk the first row.
    """
    first, others = rows[0] + [""] * (width - len(rows[0])), rows[1:]
    if known is not None and known.names:
        if len(set(first) & set(known.names)) >= 0.5 * len(known.names):
            return True, "the first line names the columns"
        if all(re.fullmatch(r"column_\d+", name) for name in known.names):
            return False, "the first line is a row, as in training"
    # new data has no options of its own
    above = "put a line with the names of the columns above the rows"
    if not others:
        cure = above if known is not None else "say --data.header no if that line is a row"
        raise ValueError(f"the table has no rows below its first line: give one, or {cure}")
    named, valued = [], []
    for i, name in enumerate(first):
        if name in marks and name != "":
            valued.append(i)
            continue
        column = [row[i] for row in others if i < len(row)]
        values = [value for value in column if value not in marks]
        if name == "" or not values:
            continue
        numbers = sum(is_number(value, decimal) for value in values)
        if is_number(name, decimal):
            if numbers >= 0.9 * len(values):
                valued.append(i)
        elif numbers >= 0.9 * len(values):
            named.append(i)
        elif name in set(values):
            valued.append(i)
        else:
            # categories of which each occurs often: the first row's would, too
            if len(values) >= 10 and len(values) >= 4 * len(set(values)):
                named.append(i)
    words = [name for name in first if name]
    numbers_above = [name for name in words if is_number(name, decimal)]
    distinct = len(set(words)) == len(words)
    yes = "the first line names the columns"
    no = "the first line is a row, not a header"
    otherwise = "; otherwise say --data.header"
    counted = _counts_up(numbers_above)
    if counted and distinct and len(numbers_above) == len(valued) and (named or len(words) >= 4):
        return True, f"{yes}, which are numbers that count up{otherwise} no"
    if named and not valued:
        return True, f"{yes}"
    if valued and not named:
        return False, f"{no} ({first[valued[0]]!r} is like what stands below){otherwise} yes"
    if named and valued:
        if len(named) >= 3 * len(valued) and distinct:
            return True, f"{yes}{otherwise} no"
        if len(valued) >= 3 * len(named):
            return False, f"{no}{otherwise} yes"
    elif distinct and words and _like_names(words, others):
        return True, f"{yes}{otherwise} no"
    cure = above if known is not None else "say --data.header yes or no"
    raise ValueError(f"whether the first line names the columns cannot be told ({listing(first, 6)}): {cure}")


def _counts_up(texts: list[str]) -> bool:
    if len(texts) < 2 or not all(re.fullmatch(r"\d{1,6}", text) for text in texts):
        return False
    numbers = [int(text) for text in texts]
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1))) or (
        1800 <= numbers[0] <= 2100 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    )


_USUAL_NAMES = re.compile(
    r"(.*[_ ])?(id|name|label|labels|class|target|y|x|text|date|time|file|filename|slide|patient|case|image|path|type|"
    r"category|species|sex|gender|age|city|country|state|title|split|group|value|key|code)s?([_ ].*)?",
    re.IGNORECASE,
)


def _like_names(words: list[str], others: list[list[str]]) -> bool:
    """Of a table of text alone: whether the first line is of words that columns are called by."""
    below = {value for row in others for value in row}
    return any(_USUAL_NAMES.fullmatch(word) for word in words) and not any(word in below for word in words)
