"""The frame of every page: what stands on it as plain values, and the templates that make HTML of them.

The templates hold all prose and escape every value. The result needs no network and no other file: its scripts are
named by their hashes in the page's policy, so that nothing else can run, whatever a class or a file is called.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from jinja2.utils import Namespace
from markupsafe import Markup

from ncmi import __version__
from ncmi.readouts.metrics import METRICS, in_words
from ncmi.recipes.names import NOT_THE_TEST_PART, method_label, samples_in_words
from ncmi.report import heat_maps, text
from ncmi.report.charts import Chart
from ncmi.report.palette import TONES, Style


@dataclass(frozen=True)
class Figure:
    """A figure: charts in groups, of which one is shown at a time, under a caption; or its caption alone.

    ``caption`` is the name of a macro in ``captions.html``, which gets the ``values`` and stands behind ``heading``;
    ``kind`` is a class of the style sheet.
    """

    caption: str
    groups: Mapping[str, Sequence[Chart]]
    values: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    heading: str = ""

    @property
    def charts(self) -> list[Chart]:
        """Those of all groups."""
        return [chart for group in self.groups.values() for chart in group]

    @property
    def legend(self) -> dict[str, Style]:
        """Series that can be isolated."""
        return {name: style for chart in self.charts for name, style in chart.legend.items()}


def render(template: str, path: Path, *, simulation: bool, **values: Any) -> str:
    """The complete HTML document of ``template`` that will be written to ``path``, with its ``verdict``."""
    script, bundle = _script("page.js"), _bundle()
    page = (
        _environment()
        .get_template(f"{template}.html")
        .render(
            contents=Namespace(sections=[], charts=[], figures=0),
            style=_script("style.css"),
            script=script,
            bundle=bundle,
            policy=_policy(script, bundle),
            tones=TONES,
            version=__version__,
            link=partial(link, page=path),
            simulation=simulation,
            simulated="Simulation, no real slides. " if simulation else "",
            **values,
        )
    )
    return page + "\n"


def link(target: Path, page: Path) -> str:
    """The way from the page's file to another file or folder: relative, so that all of it can be moved."""
    try:
        return quote(Path(os.path.relpath(target, page.parent)).as_posix())
    except ValueError:
        # another drive: no relative way leads there
        return ""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncmi.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    environment.globals |= {
        "text": text,
        "maps": heat_maps,
        "method_label": method_label,
        "samples_in_words": samples_in_words,
        "not_the_test_part": NOT_THE_TEST_PART,
        "judged": lambda record: " and ".join(METRICS[name].label for name in record.judged),
        "spoken": lambda record: " and ".join(map(in_words, record.judged)),
    }
    return environment


@cache
def _script(name: str) -> Markup:
    """Code of the package, which stands in a page as it is."""
    return Markup((files("ncmi.report") / "templates" / name).read_text(encoding="utf-8"))


@cache
def _bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed in one script; nothing in it may end the element that holds it."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


@cache
def _policy(*scripts: str) -> str:
    """What a browser may do with the page: run these scripts and show pictures that it holds, and load nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
