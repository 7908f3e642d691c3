"""Tables on narrow terminals: no figure is ever cut, whatever classes are called."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from ncmi.terminal import FigureColumn, Styled, plain, print_figures, shortened

NAMES = (
    "centroid comparison (CC)",
    "a class whose name goes on for longer than any terminal is wide, " * 3,
    "הכיתה הראשונה שלי",
    "很长的类别名称很长的类别名称很长的类别名称很长的",
    "[bold]no markup[/bold]",
    "steers\x1b[31m the\r terminal\u202e",
)
FIGURES = ("97.22 ± 10.02", "−0.36 … +0.69", "1,234,567", "0.0004", "–")


def printed(width: int, columns: int, headings: tuple[str, ...]) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    figures = [
        FigureColumn(
            f"{headings[place % len(headings)]}", [Styled(f"{FIGURES[place % 5]}")] * len(NAMES), str(place // 3)
        )
        for place in range(columns)
    ]
    print_figures(console, "title", "Method", [Styled(name) for name in NAMES], figures)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("headings", [("Accuracy %", "Δ", "NLL"), NAMES])
@pytest.mark.parametrize("columns", [1, 5, 12])
@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_every_figure_can_be_read(width: int, columns: int, headings: tuple[str, ...]) -> None:
    text = printed(width, columns, headings)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    for place in range(5):
        times = len([column for column in range(columns) if column % 5 == place])
        assert len(re.findall(rf"(?<!\S){re.escape(FIGURES[place])}(?!\S)", text)) == times * len(NAMES)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold" in text


def test_columns_of_a_group_stay_together_where_there_is_room() -> None:
    lines = printed(80, 9, ("first", "second", "third")).splitlines()
    heads = [line.split()[1:] for line in lines if "Method" in line]
    assert heads == [["first", "second", "third"]] * 3


def test_a_long_name_keeps_both_ends() -> None:
    short = shortened("tumor of the left lung, grade 1", 20)
    assert cell_len(short) <= 20
    assert short.startswith("tumor")
    assert short.endswith("grade 1")
    assert cell_len(shortened(NAMES[3], 20)) <= 20
    assert shortened("short", 20) == "short"


def test_what_steers_a_terminal_is_seen() -> None:
    assert plain(NAMES[-1]).isprintable() is True
