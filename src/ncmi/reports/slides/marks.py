"""Pieces of pictures of slides, as SVG: the frame, marks of patches, the scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ncmi.reports.elements import escape
from ncmi.reports.slides.attention import Attention
from ncmi.reports.slides.raster import Extent

WIDTH, HEAD = 400.0, 22.0
"""Width of a panel, and the room above its picture."""
_BADGE = 7.0


@dataclass(frozen=True)
class Frame:
    """Where a part of a slide lies in a panel: ``zoom`` SVG units to a pixel of level 0."""

    extent: Extent
    zoom: float

    @property
    def left(self) -> float:
        """Left edge of the picture."""
        return (WIDTH - self.width) / 2

    @property
    def width(self) -> float:
        """Width of the picture."""
        return self.extent.width * self.zoom

    @property
    def height(self) -> float:
        """Height of the picture."""
        return self.extent.height * self.zoom

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of level 0 lies in the panel."""
        return self.left + (x - self.extent.left) * self.zoom, HEAD + (y - self.extent.top) * self.zoom

    def image(self, uri: str, extra: str = "") -> str:
        """An image that fills the frame."""
        return (
            f'<image x="{self.left:.2f}" y="{HEAD:g}" width="{self.width:.2f}" height="{self.height:.2f}" '
            f'preserveAspectRatio="none"{extra} href="{uri}"/>'
        )


def label(x: float, y: float, words: str, anchor: str = "middle", size: float = 10, tone: str = "soft") -> str:
    """A line of text."""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" '
        f'style="font: {size:g}px var(--sans); fill: var(--{tone})">{escape(words)}</text>'
    )


def background(frame: Frame) -> str:
    """A quiet ground for colours that would be lost on paper or in the dark."""
    return (
        f'<rect x="{frame.left:.2f}" y="{HEAD:g}" width="{frame.width:.2f}" height="{frame.height:.2f}" '
        'fill="var(--grid)" opacity=".55"/>'
    )


def numbered(attention: Attention, frame: Frame, most: int) -> str:
    """Outlines of the top patches, and for each a numbered badge where no other badge is."""
    assert attention.coords is not None
    side = max(attention.patch_size * frame.zoom, 4.0)
    corners = attention.coords[attention.top(most)] + attention.patch_size / 2
    middles = [frame.place(float(x), float(y)) for x, y in corners]
    outlines, badges = "", ""
    taken: list[tuple[float, float]] = []
    for number, middle in enumerate(middles, start=1):
        corner = f'x="{middle[0] - side / 2:.2f}" y="{middle[1] - side / 2:.2f}" width="{side:.2f}" height="{side:.2f}"'
        # black on white: to be seen on pale and on dark tissue
        outlines += f'<rect {corner} fill="none" stroke="#fff" stroke-width="2.2"/>'
        outlines += f'<rect {corner} fill="none" stroke="#000" stroke-width="1.1"/>'
        badge = _free(middle, side / 2 + _BADGE, middles, taken, frame)
        taken.append(badge)
        outlines += (
            f'<path d="M{middle[0]:.2f} {middle[1]:.2f}L{badge[0]:.2f} {badge[1]:.2f}" stroke="#000" '
            'stroke-width=".8"/>'
        )
        badges += (
            f'<circle cx="{badge[0]:.2f}" cy="{badge[1]:.2f}" r="{_BADGE:g}" fill="#fff" stroke="#000" '
            f'stroke-width="1"/><text x="{badge[0]:.2f}" y="{badge[1] + 3.3:.2f}" text-anchor="middle" '
            f'style="font: 700 9.5px var(--sans); fill: #000">{number}</text>'
        )
    return outlines + badges


def _free(
    middle: tuple[float, float],
    nearest: float,
    patches: Sequence[tuple[float, float]],
    taken: Sequence[tuple[float, float]],
    frame: Frame,
) -> tuple[float, float]:
    """A place for a badge near its patch: inside the panel, on no patch and on no other badge, if there is one."""
    best, most = middle, -math.inf
    for ring in range(14):
        for turn in range(16):
            angle = math.pi * (turn / 8 - 0.25)
            reach = nearest + 1 + ring * _BADGE
            x, y = middle[0] + reach * math.cos(angle), middle[1] + reach * math.sin(angle)
            if not (_BADGE <= x <= WIDTH - _BADGE and HEAD + _BADGE <= y <= HEAD + frame.height - _BADGE):
                continue
            room = min(
                min((math.hypot(x - a, y - b) for a, b in taken), default=math.inf) - 2.1 * _BADGE,
                min(math.hypot(x - a, y - b) for a, b in patches) - nearest,
            )
            if room >= 0:
                return x, y
            if room > most:
                best, most = (x, y), room
    return best


def scale_bar(frame: Frame, mpp: float | None) -> str:
    """A bar of a round length on the slide, where its resolution is known."""
    if mpp is None:
        return ""
    widest = 0.3 * frame.extent.width * mpp / 1000
    length = 10 ** math.floor(math.log10(widest))
    length = max(step * length for step in (1, 2, 5) if step * length <= widest)
    units = length * 1000 / mpp * frame.zoom
    x, y = frame.left + 8, HEAD + frame.height - 8
    told = f"{length:g} mm" if length >= 0.5 else f"{1000 * length:g} µm"
    return (
        f'<rect x="{x - 4:.2f}" y="{y - 15:.2f}" width="{max(units, 34) + 8:.2f}" height="20" fill="#fff" '
        'opacity=".75"/>'
        f'<path d="M{x:.2f} {y:.2f}H{x + units:.2f}" stroke="#000" stroke-width="2.5"/>'
        f'<text x="{x:.2f}" y="{y - 4:.2f}" style="font: 9.5px var(--sans); fill: #000">{told}</text>'
    )
