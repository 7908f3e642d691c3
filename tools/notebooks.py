"""Notebooks as pages: scripts in percent format, run cell by cell, with what every cell shows.

A cell begins with ``# %%``, and with ``# %% [markdown]`` where it is text; Jupyter (by jupytext) and editors open such
scripts as notebooks. As there, a cell shows what it prints and the value of its last line: a table as HTML, a chart as
SVG. Jupyter's own machinery would bring two dozen packages, and outputs would have to be converted all the same.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import altair


def page_of_notebook(path: Path) -> str:
    """Markdown of a notebook that has been run in a folder of its own.

    Raises:
        RuntimeError: for a cell that fails, with the notebook and the cell.
    """
    names: dict[str, Any] = {"__name__": "__notebook__"}
    pieces, cells = [], cells_of(path.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for is_text, content in cells:
            if is_text:
                pieces.append(re.sub(r"^# ?", "", content, flags=re.MULTILINE))
                continue
            try:
                shown = _run(content, names)
            except Exception as error:
                raise RuntimeError(f"{path.name}: {type(error).__name__}: {error}, in the cell\n{content}") from error
            pieces += [f"```python\n{content}\n```", *shown]
    return "\n\n".join(pieces) + "\n"


def cells_of(text: str) -> list[tuple[bool, str]]:
    """The cells of a script: whether each is text, and what stands in it."""
    parts = re.split(r"^# %%( \[markdown\])?\n", text, flags=re.MULTILINE)[1:]
    return [(bool(kind), content.strip()) for kind, content in zip(parts[::2], parts[1::2], strict=True)]


def _run(code: str, names: dict[str, Any]) -> list[str]:
    """Run a cell; Markdown of what it prints, and of the value of its last line."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    text = printed.getvalue().rstrip()
    return [f"```text\n{text}\n```"] * bool(text) + ([] if value is None else [_shown(value)])


def _shown(value: Any) -> str:
    if isinstance(value, altair.TopLevelMixin):
        picture = io.StringIO()
        value.save(picture, format="svg")
        return f"<div>{picture.getvalue()}</div>"
    if hasattr(value, "_repr_html_"):
        # tables look as the site's other tables do, and a blank line would end the HTML
        html = re.sub(r'<style.*?</style>| border="1" class="dataframe"', "", value._repr_html_(), flags=re.DOTALL)
        return re.sub(r"\n\s*\n", "\n", f"<div>{html}</div>")
    return f"```text\n{value!r}\n```"
