"""Exceptions that cross the borders between packages."""

from __future__ import annotations


class Interrupted(Exception):
    """A run was asked to stop, and has written a checkpoint to go on from."""
