"""Bags under the names that a table of slides gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ncmi.data.dataset import listing
from ncmi.slides.bag import Bag, BagError, BagSource
from ncmi.slides.labels import slide_name

_SUFFIX = re.compile(r"[_\-](features|feats|feat|embeddings|embedding|bag|patches)$", re.IGNORECASE)


class RenamedBags(BagSource):
    """Some bags of a source under other names.

    Args:
        source: of the bags.
        bags: name → name in the source.
    """

    def __init__(self, source: BagSource, bags: Mapping[str, str]) -> None:
        self.source = source
        self.bags = dict(bags)
        self.path = source.path
        self.names = tuple(sorted(bags))

    def shape(self, name: str) -> tuple[int, int]:
        """(N, D_feat) of a bag."""
        return self.source.shape(self._inner(name))

    def load(self, name: str) -> Bag:
        """Read a bag; it carries the new name."""
        return replace(self.source.load(self._inner(name)), name=name)

    def label(self, name: str) -> str | None:
        """The label that the source gives a bag."""
        return self.source.label(self._inner(name))

    def _inner(self, name: str) -> str:
        try:
            return self.bags[name]
        except KeyError:
            raise BagError(f"{self.path}: no bag {name!r} (there is {listing(self.names, 5)})") from None


def match_names(slides: Sequence[str], bags: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Slide → bag for each slide that has one, and the bags that no slide takes.

    A bag is a slide's if it is called alike; or else alike but for a file ending, a suffix such as ``_features``, or
    zeros before a number.

    Raises:
        BagError: where two bags could be a slide's.

    Example:
        >>> match_names(["a", "b"], ["a_features", "c.svs"])
        ({'a': 'a_features'}, ('c.svs',))
        >>> match_names(["0", "1"], ["00", "01"])
        ({'0': '00', '1': '01'}, ())
    """
    exact = set(bags) & set(slides)
    alike: dict[str, list[str]] = {}
    for bag in sorted(set(bags) - exact):
        names = {slide_name(bag), _SUFFIX.sub("", slide_name(bag))}
        if bag.isdecimal():
            names.add(str(int(bag)))
        for name in names - {bag}:
            alike.setdefault(name, []).append(bag)
    found = {}
    for slide in slides:
        candidates = [slide] if slide in exact else alike.get(slide, [])
        if len(candidates) > 1:
            raise BagError(f"features of slide {slide!r} could be any of {listing(candidates)}: keep one of them")
        if candidates:
            found[slide] = candidates[0]
    taken = set(found.values())
    return found, tuple(bag for bag in bags if bag not in taken)
