"""Readers of feature bags, one file a layout."""

from ncmi.slides.readers.open import LAYOUTS, open_bags

__all__ = ["LAYOUTS", "open_bags"]
