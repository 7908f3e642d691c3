"""Which bag is which slide's: names of tables and of files that are alike, though not the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ncmi.data.bags.bag import Bag, BagError, BagSource
from ncmi.data.bags.labels import slide_name
from ncmi.errors import listing

_SUFFIX = re.compile(r"[_\-](features|feats|feat|embeddings|embedding|bag|patches)$", re.IGNORECASE)


class RenamedBags(BagSource):
    """Some bags of a source under other names: name → name in the source."""

    def __init__(self, source: BagSource, bags: Mapping[str, str]) -> None:
        self.source, self.bags = source, dict(bags)
        self.path, self.names = source.path, tuple(sorted(bags))

    def shape(self, name: str) -> tuple[int, int]:
        return self.source.shape(self.entry(self.bags, name))

    def load(self, name: str) -> Bag:
        """Read a bag; it carries the new name."""
        return replace(self.source.load(self.entry(self.bags, name)), name=name)

    def label(self, name: str) -> str | None:
        return self.source.label(self.entry(self.bags, name))

    def encoder(self, name: str) -> str | None:
        return self.source.encoder(self.entry(self.bags, name))


def match_names(slides: Sequence[str], bags: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Slide → bag for each slide that has one, and the bags that no slide takes.

    A bag is a slide's if it is called alike; or else alike but for a file ending, a suffix such as ``_features``, or
    zeros before a number.

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
    chosen = {}
    for slide in slides:
        candidates = [slide] if slide in exact else alike.get(slide, [])
        if len(candidates) > 1:
            raise BagError(f"features of slide {slide!r} could be any of {listing(candidates)}: keep one of them")
        if candidates:
            chosen[slide] = candidates[0]
    taken = set(chosen.values())
    return chosen, tuple(bag for bag in bags if bag not in taken)
