"""Independent streams of random numbers by name, so that any slide can be made on its own."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *words: str) -> np.random.Generator:
    """The stream that a seed and some words name; other words, another stream.

    >>> stream(0, "slide", "a").random() == stream(0, "slide", "a").random()
    True
    >>> stream(0, "slide", "a").random() == stream(0, "slide", "b").random()
    False
    """
    # lengths first: ("ab", "c") and ("a", "bc") are different names
    key = "".join(f"{len(word)}:{word}" for word in (str(seed), *words))
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(int.from_bytes(digest, "big"))))
