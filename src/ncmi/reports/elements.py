"""Pieces of HTML. Whatever comes from a run folder passes through :func:`escape` here."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ncmi.reports.figures.palette import Style
from ncmi.reports.figures.svg import Panel


def escape(value: object) -> str:
    """Text that cannot become markup."""
    return html.escape(str(value), quote=True)


def section(title: str, *parts: str) -> str:
    """A titled section; ``parts`` are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>\n"


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    kind: str = "",
    marks: dict[int, str] | None = None,
) -> str:
    """A table that scrolls sideways if it must. Headings are text, cells HTML, ``marks`` row classes."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = []
    for index, row in enumerate(rows):
        mark = f' class="{marks[index]}"' if marks and index in marks else ""
        first, *rest = row
        cells = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
        body.append(f"<tr{mark}>{cells}</tr>\n")
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(body)}</tbody></table></div>\n"
    )


def facts(values: dict[str, Any]) -> str:
    """A two-column list of names and values."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in values.items())
    return f'<dl class="facts">\n{rows}</dl>\n'


def beside(*parts: str) -> str:
    """HTML parts side by side, or below each other where the page is narrow."""
    return f'<div class="panels">{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def how_it_ran(training: dict[str, str], other: dict[str, str], environment: dict[str, str]) -> str:
    """Settings in two columns: data, network and environment, beside them the training."""
    left = f"<h3>Data and network</h3>\n{facts(other)}<h3>Environment</h3>\n{facts(environment)}"
    return beside(left, f"<h3>Training</h3>\n{facts(training)}")


def figure(number: int, caption: str, panels: Sequence[Panel], *, kind: str = "", legend: str = "") -> str:
    """A numbered figure: panels side by side, a caption below. ``caption`` is text, ``legend`` HTML."""
    body = "".join(f'<div class="panel">{panel.svg}</div>\n' for panel in panels)
    return (
        f'<figure class="{kind}" id="figure-{number}">\n{legend}<div class="panels">\n{body}</div>\n'
        f"<figcaption><b>Figure {number}.</b> {escape(caption)}</figcaption>\n</figure>\n"
    )


def series_legend(styles: dict[str, Style]) -> str:
    """Names of the curves with their colour and line style; pointing at one brings it out."""
    items = []
    for index, (label, style) in enumerate(styles.items()):
        dashes = f' stroke-dasharray="{style.dashes}"' if style.dashes else ""
        line = (
            f'<svg viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
            f'<path d="M1 5H33" stroke="var(--{style.tone})" stroke-width="3"{dashes}/></svg>'
        )
        items.append(f'<li class="k{index}" tabindex="0">{line}{escape(label)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def legend_rules(count: int) -> str:
    """Style rules by which the legend's entry K brings out the series K."""
    rules = []
    for index in range(count):
        chosen = f"figure:has(.k{index}:is(:hover,:focus))"
        rules.append(f"{chosen} .series:not(.s{index}) {{ opacity: .08; }}\n{chosen} .s{index} {{ stroke-width: 3; }}")
    return "\n".join(rules)


def link(target: Path, page: Path, label: str) -> str:
    """A link from the page's file to another file or folder: relative, so that all of it can be moved."""
    try:
        relative = os.path.relpath(target, page.parent)
    except ValueError:
        # another drive: no relative way leads there
        return escape(label)
    return f'<a href="{escape(quote(Path(relative).as_posix()))}">{escape(label)}</a>'
