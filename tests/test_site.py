"""The documentation's site: built without a warning, whole, and without a fault in a real browser."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ncmi

ROOT = Path(__file__).resolve().parents[1]
BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
sys.path.insert(0, str(ROOT / "tools"))

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("zensical", "mkdocstrings", "latex2mathml")),
    reason="needs the extra docs",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, str(ROOT / "tools" / "site.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "griffe" not in done.stdout + done.stderr  # its warnings end nothing
    return out


def test_reference_has_every_public_name(site: Path) -> None:
    pages = "".join(path.read_text("utf-8") for path in (site / "reference").glob("*.html"))
    identifiers = set(re.findall(r'id="([\w.]+)"', pages))
    assert {f"ncmi.{name}" for name in ncmi.__all__} <= identifiers
    assert not re.search(r":(class|func|meth|mod|attr):", pages)
    assert "&gt;&gt;&gt;" in pages  # examples are code
    assert not re.search(r"<blockquote>\s*<blockquote>", pages)


def test_pages_are_those_of_the_checkout(site: Path) -> None:
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {*names, "index", "changelog", "contributing"} <= {path.stem for path in site.glob("*.html")}
    linked = set(re.findall(r'href="(?:\./)?([\w-]+)\.html"', (site / "index.html").read_text("utf-8")))
    assert names <= linked, "a page that no navigation leads to"
    mathematics = (site / "mathematics.html").read_text("utf-8")
    assert mathematics.count("<math") > 40
    assert "$`" not in mathematics
    assert "```" not in mathematics


def test_notebooks_show_what_their_cells_give(site: Path) -> None:
    sources = {path.stem.replace("_", "-") for path in (ROOT / "examples" / "notebooks").glob("*.py")}
    pages = {path.stem: path.read_text("utf-8") for path in (site / "notebooks").glob("*.html")}
    assert pages.keys() == sources
    assert all("<th>accuracy</th>" in page for page in pages.values())
    assert "<svg" in pages["measures"]
    home = (site / "index.html").read_text("utf-8")
    assert all(f"notebooks/{name}.html" in home for name in sources)


def test_a_cell_that_fails_is_named(tmp_path: Path) -> None:
    from notebooks import page_of_notebook

    script = tmp_path / "broken.py"
    script.write_text("# %% [markdown]\n# # Two cells\n\n# %%\n2 + 3\n\n# %%\nlist(range(3)).index(7)\n", "utf-8")
    with pytest.raises(RuntimeError, match=r"broken\.py: ValueError: .*\n.*index\(7\)"):
        page_of_notebook(script)
    script.write_text(script.read_text("utf-8").replace("index(7)", "index(2)"), "utf-8")
    page = page_of_notebook(script)
    assert page.startswith("# Two cells")
    assert re.findall(r"```text\n(\d)\n```", page) == ["5", "2"]


class Served(http.server.ThreadingHTTPServer):
    """A folder on this machine; what pages post to it lies in ``answers``."""

    def __init__(self, folder: Path) -> None:
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        return None

    def do_POST(self) -> None:
        assert isinstance(self.server, Served)
        self.server.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[Served]:
    server = Served(site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


PROBE = """
const faults = [];
const note = (event) => faults.push(String(event.message || event.target.src || event.target.href));
addEventListener('error', note, true);
const said = console.error; console.error = (...words) => { faults.push(words.join(' ')); said(...words); };
const pause = (time) => new Promise((then) => setTimeout(then, time));
const within = (root) => [...root.querySelectorAll('*')].flatMap((e) => [e, ...(e.shadowRoot ? within(e.shadowRoot) : [])]);
const found = async (look) => { for (let tries = 0; tries < 300 && !look(); tries += 1) await pause(100); return look(); };
const hits = () => within(document).filter((e) => e.tagName === 'A' && e.href.includes('mathematics')).length;
addEventListener('load', async () => {
  const answer = {};
  try {
    if (location.search) {
      document.querySelector('.md-search__button').click();
      const box = await found(() => within(document).find((e) => e.tagName === 'INPUT' && e.type === 'text'));
      answer.before = hits();
      Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(box, 'separation power');
      box.dispatchEvent(new Event('input', { bubbles: true, composed: true }));
      answer.found = await found(() => hits() > answer.before);
    } else {
      await pause(1500);
    }
  } catch (error) { faults.push(String(error)); }
  answer.links = document.querySelectorAll('nav a[href]').length;
  const loaded = performance.getEntriesByType('resource').map((entry) => entry.name);
  answer.outside = loaded.filter((name) => !name.startsWith(location.origin) && !name.startsWith('blob:'));
  await fetch('/answer', { method: 'POST', body: JSON.stringify({ ...answer, faults }) });
});
"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium here to look at pages with")
@pytest.mark.parametrize("name", ["index", "mathematics", "reference/the-loss"])
def test_page_in_a_browser(site: Path, server: Served, name: str, tmp_path: Path) -> None:
    page = site / f"{name}.html"
    probed = page.with_name(f"probed-{page.name}")
    probed.write_text(page.read_text("utf-8").replace("<head>", f"<head><script>{PROBE}</script>", 1), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={tmp_path}"]
    address = f"http://127.0.0.1:{server.server_address[1]}/{probed.relative_to(site)}"
    searched = "?search" if name == "index" else ""
    with subprocess.Popen([BROWSER, *flags, address + searched], stderr=subprocess.DEVNULL) as browser:
        try:
            answer = server.answers.get(timeout=200)
        finally:
            browser.terminate()
    assert answer["faults"] == []
    assert answer["outside"] == []
    assert answer["links"] > 10
    assert answer.get("found") is (True if searched else None)
