"""The head of an ARFF file (Weka): names of the columns, and whether they are numbers or nominal."""

import re
from dataclasses import dataclass

_ATTRIBUTE = re.compile(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+?)\s*(\{.*|\s\S.*)$""", re.IGNORECASE)


@dataclass(frozen=True)
class ArffHead:
    """What stands above the rows.

    Attributes:
        names: of the columns.
        kinds: of each column: "numeric", "nominal", or "other" such as string and date.
        start: byte at which the rows begin.
        quote: sign around values.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    start: int
    quote: str


def read_arff_head(data: bytes) -> ArffHead:
    """Names and kinds of columns by the lines ``@attribute``, up to ``@data``.

    Raises:
        ValueError: for a head without columns or without end, and for sparse rows.

    Example:
        >>> read_arff_head(b"@relation r\\n@attribute 'a b' real\\n@attribute c {x,y}\\n@data\\n1,x\\n").kinds
        ('numeric', 'nominal')
    """
    names, kinds, position = [], [], 0
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        line = data[position:end].decode("utf-8", "replace").strip()
        position = end + 1
        if re.match(r"@data\b", line, re.IGNORECASE):
            break
        if not re.match(r"@attribute\b", line, re.IGNORECASE):
            continue
        match = _ATTRIBUTE.match(line)
        if match is None:
            raise ValueError(f"the line {line[:80]!r} names no column: expected @attribute NAME TYPE")
        name, kind = match[1], match[2].strip().lower()
        names.append(re.sub(r"\\(.)", r"\1", name[1:-1]) if name[0] in "'\"" else name)
        numeric = re.match(r"(real|numeric|integer)\b", kind)
        kinds.append("nominal" if kind.startswith("{") else "numeric" if numeric else "other")
    else:
        raise ValueError("no line @data: an ARFF file without rows")
    if not names:
        raise ValueError("no line @attribute: an ARFF file without columns")
    rows = data[position : position + 100_000].decode("utf-8", "replace")
    first = next((line for line in rows.split("\n") if line.strip() and not line.startswith("%")), "")
    if first.lstrip().startswith("{"):
        raise ValueError("sparse ARFF rows cannot be read: save the table as CSV")
    quote = '"' if rows.count('"') > rows.count("'") else "'"
    return ArffHead(tuple(names), tuple(kinds), position, quote)
