"""The figures of a report. Each function returns panels: small SVGs that the page arranges to fit."""

from __future__ import annotations
