"""Tables for terminals of any width: figures are never cut, long names lose their middle, wide tables are parted."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP, _EDGES = 2, 2
_LEAST_NAME = 12
# marks that keep text that is read from right to left from moving what stands beside it
_ISOLATE, _POP = "\u2068", "\u2069"


@dataclass(frozen=True)
class Styled:
    """Words of a cell, and how a terminal shows them: lines are parted by line feeds."""

    words: str
    style: str = ""


@dataclass(frozen=True)
class FigureColumn:
    """A column of figures: its heading and its cells. Columns of one group stay together where there is room."""

    heading: str
    cells: Sequence[Styled]
    group: str = ""

    @property
    def width(self) -> int:
        """Terminal cells that its widest line takes."""
        return max(_width(words) for words in (self.heading, *(cell.words for cell in self.cells)))


def print_figures(
    console: Console,
    title: str,
    first: str,
    names: Sequence[Styled],
    columns: Sequence[FigureColumn],
    *,
    note: str = "",
    ends: Sequence[bool] = (),
) -> None:
    """Print a table of named rows, or several below each other where one is wider than the console.

    Names and headings are the user's: they are no markup, and no control signs. What is cut short is names alone.

    Args:
        console: whose width counts.
        title: above the first table.
        first: heading of the names.
        names: of the rows.
        columns: figures.
        note: below the last table.
        ends: after which rows there is a gap.
    """
    width = console.width - _EDGES
    columns = [_fitting(column, width) for column in columns]
    room = max((column.width for column in columns), default=0) + _GAP
    wanted = max(_width(words) for words in (first, *(name.words for name in names)))
    # names give way to figures, but not to more than one column of them
    most = max(_LEAST_NAME, min(wanted, max(width // 3, width - _GAP - _total(columns))))
    most = min(most, max(1, width - room - _GAP))
    parts = _parts(columns, width - min(most, wanted) - _GAP)
    if title:
        console.print(Text(plain(title), style="italic"))
    for part in parts or [[]]:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(Text(shortened(first, most)), no_wrap=True)
        for column in part:
            table.add_column(Text(column.heading), justify="right", no_wrap=True)
        for row, name in enumerate(names):
            cells = [Styled(shortened(name.words, most), name.style), *(column.cells[row] for column in part)]
            table.add_row(*(Text(cell.words, cell.style) for cell in cells), end_section=bool(ends) and bool(ends[row]))
        console.print(table)
    if note:
        console.print(Text(note, style="dim italic"))


def shortened(words: str, most: int) -> str:
    """A name in so many cells of a terminal at most: what is too long loses its middle.

    >>> shortened("a name that goes on and on", 12), shortened("short", 12)
    ('a nam…and on', 'short')
    """
    words = plain(words)
    if _width(words) <= most:
        return _isolated(words)
    head, tail = "", ""
    # from both ends, as wide signs take two cells
    for at in range(len(words)):
        if _width(head + words[at]) > (most - 1) // 2:
            break
        head += words[at]
    for sign in reversed(words):
        if _width(head) + _width(sign + tail) > most - 1:
            break
        tail = sign + tail
    return _isolated(f"{head.rstrip()}…{tail}")


def plain(words: str) -> str:
    """Words without what would steer a terminal: control signs, and marks that turn the direction of text.

    >>> plain("a\\x1b[31mb\\u202e")
    'a�[31mb�'
    """
    steering = ("Cc", "Cf", "Cs")
    return "".join("\ufffd" if unicodedata.category(sign) in steering else sign for sign in words)


def _isolated(words: str) -> str:
    turned = any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in words)
    return f"{_ISOLATE}{words}{_POP}" if turned else words


def _width(words: str) -> int:
    return max(map(cell_len, words.split("\n")))


def _total(columns: Iterable[FigureColumn]) -> int:
    return sum(column.width + _GAP for column in columns)


def _fitting(column: FigureColumn, width: int) -> FigureColumn:
    """The column with a heading that leaves room: headings may be names of classes."""
    most = max([width // 4, *(_width(cell.words) for cell in column.cells)])
    return replace(column, heading=shortened(column.heading, most))


def _parts(columns: Sequence[FigureColumn], room: int) -> list[list[FigureColumn]]:
    """The columns in as few parts as have room, from left to right; groups are torn only where they must be."""
    groups: list[list[FigureColumn]] = []
    for column in columns:
        if groups and column.group and groups[-1][-1].group == column.group:
            groups[-1].append(column)
        else:
            groups.append([column])
    parts: list[list[FigureColumn]] = []
    for group in groups:
        if parts and _total(parts[-1]) + _total(group) <= room:
            parts[-1].extend(group)
            continue
        for number, column in enumerate(group):
            if number and _total(parts[-1]) + _total([column]) <= room:
                parts[-1].append(column)
            else:
                parts.append([column])
    return parts
