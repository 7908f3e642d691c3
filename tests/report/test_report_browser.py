"""Pages in a real browser: no fault, nothing loaded, tables sort and filter, charts isolate, hostile names inert."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from folders import edit, write_bag_run, write_comparison

from ncmi.report import write_report

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=120000",
    "--dump-dom",
]
HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=\'document.title="owned"\'>"&‮🧪'

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here to look at pages with")


def opened(path: Path, script: str = "") -> dict[str, Any]:
    """What a browser makes of a page: its faults, its title, and what ``script`` returns there after all is drawn.

    A copy of the page holds the script; its policy lets this one run, and nothing else more.
    """
    source = path.read_text(encoding="utf-8")
    body = (
        "(async () => { const root = document.documentElement;"
        "while (!root.dataset.ready) await new Promise((then) => setTimeout(then, 50));"
        f"let answer; try {{ answer = await (async () => {{ {script} }})(); }} catch (error) {{ answer = String(error); }}"
        "const errors = root.dataset.errors ?? ''; const title = document.title;"
        "const loaded = performance.getEntriesByType('resource').map((entry) => entry.name);"
        "root.dataset.answer = JSON.stringify({ errors, title, answer, loaded }); })();"
    )
    source = source.replace("script-src ", "script-src 'nonce-judge' ", 1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        # at the end: Vega itself speaks of bodies
        start, end, rest = source.rpartition("</body>")
        copy.write_text(f"{start}<script nonce='judge'>{body}</script>{end}{rest}", encoding="utf-8")
        command = [BROWSER, *FLAGS, f"--user-data-dir={folder}/profile", copy.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    found = re.search(r'data-answer="([^"]*)"', result.stdout)
    assert found, result.stdout[:300] + result.stderr[-2000:]
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "digits"
    return write_report(write_comparison(folder, ["ncmi", "cross_entropy", "supcon"], seeds=range(2)))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_comparison(
        tmp_path_factory.mktemp("reports") / "odd",
        ["ncmi", "cross_entropy"],
        seeds=[0, 1],
        class_names=[HOSTILE, "=cmd()", "third"],
        num_test=90,
    )

    def rename(content: dict[str, Any]) -> None:
        content["data"] = HOSTILE
        content["entries"][0]["label"] += HOSTILE

    edit(folder / "comparison.json", rename)
    return write_report(folder)


TABLE = "const table = document.querySelector('[data-name=scores]');"
COLUMN = (
    "const column = (n) => [...table.querySelectorAll('tbody tr:not([hidden])')].map((row) => row.cells[n].innerText);"
)


SCRIPTS = {
    "drawn": (
        "return [...document.querySelectorAll('.panel .chart')].map("
        "(box) => [box.querySelectorAll('svg').length, box.querySelectorAll('svg path').length > 3]);"
    ),
    "sorted": (
        f"{TABLE}{COLUMN} const header = table.querySelectorAll('thead button')[2]; const order = [column(0)];"
        "for (let click = 0; click < 3; click += 1) { header.click(); order.push(column(0)); order.push(column(2)); }"
        "return { order, sort: header.closest('th').getAttribute('aria-sort') };"
    ),
    "filtered": (
        f"{TABLE}{COLUMN} const [loss, readout] = table.querySelectorAll('select'); const seen = [column(0)];"
        "const choose = (select, value) => { select.value = value;"
        "select.dispatchEvent(new Event('change', { bubbles: true })); seen.push(column(0)); };"
        "choose(readout, 'LP'); choose(loss, 'NCMI'); choose(readout, '*'); choose(loss, ''); choose(readout, '');"
        "return seen;"
    ),
    "isolated": (
        "const figure = [...document.querySelectorAll('figure')].find((one) => one.querySelector('.legend'));"
        "const button = figure.querySelector('.legend button'); const faint = () =>"
        "[...figure.querySelector('.chart').querySelectorAll('.mark-line path')].map((p) => getComputedStyle(p).opacity);"
        "const before = faint(); button.click(); await new Promise((then) => setTimeout(then, 300)); const after = faint();"
        "const choices = [...document.querySelectorAll('.choice button')]; choices[1].click();"
        "const groups = [...document.querySelector('.choice').closest('figure').querySelectorAll('[data-group]')];"
        "return { before, after, pressed: button.ariaPressed, shown: groups.map((group) => !group.hidden) };"
    ),
}
INERT = "document.querySelectorAll('img, main script:not([type])').length"


@pytest.fixture(scope="module")
def answer(page: Path) -> dict[str, Any]:
    """What one browser saw of all the scripts, one after the other: starting it takes longer than they do."""
    parts = (f"{name}: await (async () => {{ {script} }})()" for name, script in SCRIPTS.items())
    return opened(page, f"return {{ {', '.join(parts)} }};")


@pytest.fixture(scope="module")
def hostile_answer(hostile_page: Path) -> dict[str, Any]:
    script = (
        "const files = []; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { files.push(blob); return make(blob); };"
        "HTMLAnchorElement.prototype.click = () => {};"
        "const press = async (selector) => { const count = files.length; document.querySelector(selector).click();"
        "for (let wait = 0; wait < 200 && files.length === count; wait += 1) await new Promise((t) => setTimeout(t, 50)); };"
        "for (const kind of ['svg', 'png', 'csv']) await press(`.panel [data-save=${kind}]`);"
        "await press('[data-name=classes] [data-save=table]');"
        "const content = files.map(async (blob) => [blob.type, blob.size, (await blob.text()).slice(0, 4000)]);"
        f"return {{ inert: {INERT}, files: await Promise.all(content) }};"
    )
    return opened(hostile_page, script)


def test_every_chart_is_drawn_without_a_fault_and_nothing_is_loaded(answer: dict[str, Any]) -> None:
    assert answer["errors"] == ""
    drawn = answer["answer"]["drawn"]
    assert drawn
    assert drawn == [[1, True]] * len(drawn)
    assert [name for name in answer["loaded"] if not name.startswith("data:")] == []


def test_a_click_sorts_and_a_third_one_restores(answer: dict[str, Any]) -> None:
    seen = answer["answer"]["sorted"]
    first, by_falling, falling, by_rising, rising, last, _ = seen["order"]
    numbers = [[float(cell.partition(" ")[0]) for cell in cells] for cells in (falling, rising)]
    assert numbers[0] == sorted(numbers[0], reverse=True)
    assert numbers[1] == sorted(numbers[1])
    assert sorted(by_falling) == sorted(by_rising) == sorted(first)
    assert first == last
    assert seen["sort"] is None


def test_filters_show_like_with_like(answer: dict[str, Any]) -> None:
    usual, probes, ours, every, all_rows, again = answer["answer"]["filtered"]
    assert "NCMI-kNN" not in usual
    assert probes == ["NCMI-LP", "CE-LP", "SupCon-LP"]
    assert ours == ["NCMI-LP"]
    assert every == ["NCMI", "NCMI-CC", "NCMI-LP", "NCMI-kNN"]
    assert {"SupCon", "CE-kNN"} <= set(all_rows)
    assert again == usual


def test_a_click_in_the_legend_isolates_a_curve_and_a_choice_shows_a_read_out(answer: dict[str, Any]) -> None:
    found = answer["answer"]["isolated"]
    assert set(found["before"]) == {"1"}
    assert found["pressed"] == "true"
    assert found["after"].count("1") == 1
    assert found["after"].count("0.06") == len(found["after"]) - 1
    assert found["shown"] == [False, True, False]


def test_figures_and_data_are_saved(hostile_answer: dict[str, Any]) -> None:
    assert hostile_answer["errors"] == ""
    svg, png, data, table = hostile_answer["answer"]["files"]
    assert svg[0] == "image/svg+xml"
    assert "<svg" in svg[2]
    # on light paper, whatever the page looks like, and without what only the page knows
    assert "var(--" not in svg[2]
    assert (png[0], png[1] > 5000) == ("image/png", True)
    assert data[2].splitlines()[0].lstrip("\ufeff").startswith("row,method")
    # what a spreadsheet would take for a formula is text
    assert "'=cmd()" in table[2]


def test_hostile_names_do_nothing(hostile_answer: dict[str, Any]) -> None:
    assert hostile_answer["errors"] == ""
    assert hostile_answer["answer"]["inert"] == 0
    assert hostile_answer["title"] != "owned"
    assert HOSTILE in hostile_answer["title"]


def test_hostile_names_of_slides_do_nothing(tmp_path: Path) -> None:
    options: dict[str, Any] = {"patients": 25, "resamples": 20, "epochs": 3, "attention": 1}
    slides = (HOSTILE.replace("/", "_"),)
    folder = write_bag_run(tmp_path / "run", class_names=(HOSTILE, "b", "c"), slides=slides, **options)
    answer = opened(write_report(folder), f"return {INERT};")
    assert answer["errors"] == ""
    assert answer["answer"] == 0
    assert answer["title"] != "owned"


def test_the_policy_stops_what_escaping_would_have_missed(page: Path, tmp_path: Path) -> None:
    injected = "<img src='x' onerror='document.title=`owned`'><script>document.title='owned'</script>"
    start, end, rest = page.read_text(encoding="utf-8").rpartition("</main>")
    source = f"{start}{injected}{end}{rest}"
    titles = {}
    for name, content in (("with", source), ("without", re.sub(r"<meta http-equiv=[^>]*>", "", source))):
        (tmp_path / f"{name}.html").write_text(content, encoding="utf-8")
        titles[name] = opened(tmp_path / f"{name}.html")["title"]
    assert titles["without"] == "owned"
    assert titles["with"] != "owned"
