"""How docstrings are read for the reference: Sphinx's roles as code, one line for several arguments as several.

An extension of griffe; see zensical.toml.
"""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
_SECTION = re.compile(r"^(Args|Attributes|Parameters):\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_ITEM = re.compile(r"^ {4}(\w+(?:, \*{0,2}\w+)+):(?=\s)", re.MULTILINE)


def readable(text: str) -> str:
    """A docstring in Markdown that the parser of Google's style understands."""
    text = _ROLE.sub(lambda match: f"`{match[1]}`", text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # what the parser takes for code
    text = _SESSION.sub(lambda match: f"```pycon\n{match[0]}\n```", text)  # outside of a section
    return _SECTION.sub(lambda match: f"{match[1]}:\n{_apart(match[2])}", text)


def _apart(section: str) -> str:
    """``a, b: text`` as ``a: text`` and ``b: text``."""
    places = [match.start() for match in re.finditer(r"^ {4}\S", section, re.MULTILINE)]
    pieces = [section[start:end] for start, end in zip(places, [*places[1:], len(section)], strict=True)]
    lines = []
    for piece in pieces:
        if match := _ITEM.match(piece):
            lines += [f"    {name}:{piece[match.end() :]}" for name in match[1].split(", ")]
        else:
            lines.append(piece)
    head = section[: places[0]] if places else section
    return head + "".join(line if line.endswith("\n") else line + "\n" for line in lines)


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
