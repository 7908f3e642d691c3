"""The documentation as a site: README and docs, notebooks with their outputs, a reference from the docstrings.

    python tools/site.py [--out site] [--serve]

Any warning (a link that leads nowhere, a name without documentation) ends it with an error. Needs the extra docs:
pip install -e ".[docs]". The pages are copied into a folder of their own first, since links of README and docs are
those of a checkout, and equations become MathML there, which browsers show without a script.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from latex2mathml.converter import convert

import ncmi
from notebooks import cells_of, page_of_notebook

ROOT = Path(__file__).resolve().parents[1]


def _modules(folder: str, *names: str) -> tuple[str, ...]:
    """Modules of a folder, all of whose public names are shown."""
    paths = sorted((ROOT / "src" / "ncmi" / folder).glob("[a-z]*.py"))
    return tuple(f"*ncmi.{folder}.{name}" for name in names or (path.stem for path in paths))


# page, and modules of which it has the names that ncmi itself gives; of those after a star it has all public names
REFERENCE = {
    "The loss": (
        "ncmi.loss.module",
        "ncmi.loss.functional",
        "ncmi.loss.simplex",
        "*ncmi.loss.forms",
        "*ncmi.loss.equation",
    ),
    "Centroids and optimizers": ("ncmi.loss.centroids", "ncmi.loss.alternating"),
    "Measures": ("ncmi.loss.information", "*ncmi.integrations.torchmetrics"),
    "Objectives": ("ncmi.objectives.interface", "*ncmi.objectives.options", *_modules("objectives")),
    "Read-outs": _modules("readouts"),
    "Estimator": ("ncmi.integrations.sklearn",),
    "From Python": _modules("api"),
    "Recipes": _modules("recipes"),
    "Runs": _modules("training", "run", "comparison", "prediction", "evaluation", "run_folder", "schema", "step"),
}
_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)")
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_EQUATION = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")


def page_of(text: str, where: Path) -> str:
    """A page of the checkout as a page of the site: its links, its equations.

    Args:
        text: Markdown.
        where: folder of the page in the checkout.
    """

    def link(match: re.Match[str]) -> str:
        target = os.path.relpath((where / match[2]).resolve(), ROOT)
        if target.startswith("docs/"):
            return match[1] + target.removeprefix("docs/")
        if target in ("CHANGELOG.md", "CONTRIBUTING.md"):
            return match[1] + target.lower()
        return match[1] + target if target == "README.md" else f"{match[1]}checkout:{target}"

    text = _EQUATION.sub(
        lambda match: f'<div class="equation">{convert(match[1].strip(), display="block")}</div>', text
    )
    # a line that begins with <math> would be a paragraph of its own
    text = _INLINE.sub(lambda match: f"<span>{convert(match[1])}</span>", text)
    # code stays as it is
    parts = [part if place % 2 else _LINK.sub(link, part) for place, part in enumerate(_FENCE.split(text))]
    # a file of the source has no page: its name stands without a link
    return re.sub(r"\[([^\]]+)\]\(checkout:[^)]*\)", r"\1", "".join(parts))


def public_names(module: str) -> list[str]:
    """Public classes and functions that a module defines, in their order."""
    path = ROOT / "src" / Path(*module.split("."))
    tree = ast.parse(path.with_suffix(".py").read_text("utf-8"))
    definitions = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return [node.name for node in definitions if not node.name.startswith("_") and ast.get_docstring(node)]


def reference(pages: Path) -> list[tuple[str, str]]:
    """Write the pages of the reference; gives title and file of each."""
    nav, home = [], vars(ncmi)["_HOME"]
    for title, modules in REFERENCE.items():
        lines = [f"# {title}", ""]
        for module, every in {one.lstrip("*"): one.startswith("*") for one in modules}.items():
            # what ncmi gives by itself comes first, and is named as it is imported
            given = [name for name, place in home.items() if place == module]
            further = [name for name in public_names(module) if every and name not in given]
            names = [f"ncmi.{name}" for name in given] + [f"{module}.{name}" for name in further]
            lines += [f"## `{module}`\n"] * bool(names) + [f"::: {name}\n" for name in names]
        name = f"reference/{title.lower().replace(' ', '-')}.md"
        (pages / name).parent.mkdir(exist_ok=True)
        (pages / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        nav.append((title, name))
    return nav


def notebooks(pages: Path) -> list[tuple[str, str]]:
    """Run the notebooks and write their pages; gives title and file of each."""
    nav = []
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.py")):
        name = f"notebooks/{path.stem.replace('_', '-')}.md"
        (pages / name).parent.mkdir(exist_ok=True)
        source = f"This page is a notebook: `{path.relative_to(ROOT)}` in the repository.\n"
        (pages / name).write_text(f"{page_of_notebook(path)}\n{source}", encoding="utf-8")
        title = cells_of(path.read_text("utf-8"))[0][1].splitlines()[0].lstrip("# ")
        nav.append((title, name))
    return nav


def configuration(**parts: list[tuple[str, str]]) -> str:
    """The site's settings; each part of its navigation that is made here takes the place of a word in capitals."""
    text = (ROOT / "zensical.toml").read_text("utf-8").replace("CHECKOUT", str(ROOT))
    for part, nav in parts.items():
        entries = ", ".join(f'{{ "{title}" = "{name}" }}' for title, name in nav)
        text = text.replace(f'"{part.upper()}"', entries)
    return text


def build(site: Path, command: str = "build") -> int:
    """Build the site, or serve it; the exit code of the program that does it."""
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "docs"
        shutil.copytree(ROOT / "docs", pages)
        for path in pages.glob("*.md"):
            path.write_text(page_of(path.read_text("utf-8"), ROOT / "docs"), encoding="utf-8")
        for name, page in (("README", "index"), ("CHANGELOG", "changelog"), ("CONTRIBUTING", "contributing")):
            text = page_of((ROOT / f"{name}.md").read_text("utf-8"), ROOT)
            (pages / f"{page}.md").write_text(text, encoding="utf-8")
        config = Path(folder) / "zensical.toml"
        config.write_text(configuration(reference=reference(pages), notebooks=notebooks(pages)), encoding="utf-8")
        strict = ["--strict", "--clean"] if command == "build" else []
        arguments = [sys.executable, "-m", "zensical", command, "-f", str(config), *strict]
        code = subprocess.run(arguments, cwd=folder).returncode
        if code == 0 and command == "build":
            shutil.rmtree(site, ignore_errors=True)
            shutil.move(Path(folder) / "site", site)
        return code


def main() -> int:
    """Build or serve."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the site")
    command.add_argument("--serve", action="store_true", help="show it on this machine instead")
    arguments = command.parse_args()
    return build(arguments.out, "serve" if arguments.serve else "build")


if __name__ == "__main__":
    sys.exit(main())
