"""Attention over a slide: the slide with its top patches marked, the heat map with its colour bar, the patches."""

from __future__ import annotations

import math

from ncmi.reports import text
from ncmi.reports.elements import escape
from ncmi.reports.figures.svg import Panel
from ncmi.reports.slides.attention import Attention
from ncmi.reports.slides.marks import HEAD, WIDTH, Frame, background, label, numbered, scale_bar
from ncmi.reports.slides.raster import LOWEST, Extent, colour_of, extent_of, heat_png, jpeg, paint, top_of
from ncmi.reports.slides.sources import Picture

TOP = 8
"""So many patches with the highest attention are shown."""
_TALLEST = 440.0
_STOPS = 24


def heat_panels(name: str, attention: Attention, picture: Picture) -> list[Panel]:
    """Panels of one slide whose patches' places are known.

    With a thumbnail: the slide with its top patches numbered, and the heat map over the slide in grey. Without: the
    heat map over the patches alone, the top ones numbered.

    Args:
        name: unique on the page.
        attention: with coordinates.
        picture: what there is to see of the slide.
    """
    assert attention.coords is not None
    extent = extent_of(attention.coords, attention.patch_size)
    if picture.thumbnail is not None:
        extent = Extent(0, 0, *picture.size)
    frame = Frame(extent, min(WIDTH / extent.width, _TALLEST / extent.height))
    numbers = numbered(attention, frame, TOP)
    panels = []
    heat = background(frame)
    if picture.thumbnail is not None:
        drawn = frame.image(jpeg(picture.thumbnail)) + numbers + scale_bar(frame, picture.mpp)
        told = f"The slide {attention.slide} with its {TOP} patches of highest attention"
        panels.append(_panel("The slide and its top patches", told, drawn, HEAD + frame.height + 4))
        heat, numbers = frame.image(jpeg(picture.thumbnail.convert("L"), 70), ' opacity=".8"'), ""
    relative = attention.relative
    top = top_of(relative)
    pixels = paint(relative, attention.coords, attention.patch_size, extent)
    opacity = ' opacity=".78"' if picture.thumbnail is not None else ""
    heat += frame.image(heat_png(pixels, top), opacity + ' style="image-rendering: pixelated"') + numbers
    bar, height = _colour_bar(name, top, HEAD + frame.height + 12)
    most = text.significant(float(relative.max()))
    told = f"Attention over {attention.slide}: {len(relative)} patches, at most {most} times an even share"
    panels.append(_panel("Attention", told, heat + bar, height))
    return panels


def _panel(title: str, description: str, body: str, height: float) -> Panel:
    head = f'<text y="12" style="font: 700 11.5px var(--sans); fill: var(--ink)">{escape(title)}</text>'
    return Panel(
        f'<svg viewBox="0 0 {WIDTH:g} {height:.2f}" role="img" aria-label="{escape(description)}">{head}{body}</svg>'
    )


def _colour_bar(name: str, top: float, y: float) -> tuple[str, float]:
    """The scale of the colours, and where it ends."""
    left, width = 12.0, WIDTH - 24
    stops = "".join(
        f'<stop offset="{place / _STOPS:.4f}" stop-color="{colour_of(place / _STOPS)}"/>' for place in range(_STOPS + 1)
    )
    ticks = [LOWEST, *(10.0**power for power in range(0, 7) if 10.0**power < top / 1.6), top]
    marks = ""
    for tick in ticks:
        x = left + width * math.log(tick / LOWEST) / math.log(top / LOWEST)
        words = f"{float(f'{tick:.2g}'):,g}×"
        words = f"≤ {words}" if tick == LOWEST else words
        marks += f'<path d="M{x:.2f} {y + 9:.2f}v4" stroke="var(--soft)"/>' + label(x, y + 24, words)
    return (
        f'<defs><linearGradient id="{name}-bar">{stops}</linearGradient></defs>'
        f'<rect x="{left:g}" y="{y:.2f}" width="{width:g}" height="9" fill="url(#{name}-bar)"/>{marks}'
        + label(WIDTH / 2, y + 40, "attention relative to an even share (1× = 1/N), logarithmic", size=10.5)
    ), y + 46


def patches_panel(attention: Attention, picture: Picture) -> Panel:
    """The top patches as images side by side, with their attention."""
    width, gap = 820.0, 8.0
    side = (width - (TOP - 1) * gap) / TOP
    body = ""
    relative = attention.relative
    for index, (place, image) in enumerate(zip(attention.top(TOP), picture.patches, strict=True)):
        x = index * (side + gap)
        body += (
            f'<image x="{x:.2f}" y="0" width="{side:.2f}" height="{side:.2f}" href="{jpeg(image)}"/>'
            + label(x, side + 13, f"{index + 1}", "start", 10.5, "ink")
            + label(x + side, side + 13, f"{text.significant(float(relative[place]))}×", "end")
        )
    told = f"The {len(picture.patches)} patches of {attention.slide} with the highest attention"
    return Panel(f'<svg viewBox="0 0 {width:g} {side + 18:.2f}" role="img" aria-label="{escape(told)}">{body}</svg>')
