"""A newcomer's way, timed: install, compare losses on a CSV, predict from Python, export to ONNX.

    python benchmarks/newcomer.py [--repeats 1]

The commands are those of README, line by line, run in a fresh virtual environment and in a copy of the last commit,
where scikit-learn's wine table lies as wine.csv. In the end onnxruntime alone runs the exported file. Prints the
seconds of each step (median and range over repeats; the installation is made once, from whatever pip has in its
cache), the machine, and the size of the environment.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WINE = 'from sklearn.datasets import load_wine; load_wine(as_frame=True).frame.to_csv("wine.csv", index=False)'
ALONE = """
import numpy, onnxruntime, sys
session = onnxruntime.InferenceSession(sys.argv[1])
row = {given.name: numpy.ones((1, 1), numpy.float32) for given in session.get_inputs()}
label, probabilities = session.run(["label", "probabilities"], row)
assert "ncmi" not in sys.modules and "torch" not in sys.modules
assert abs(probabilities.sum() - 1) < 1e-5, probabilities
print(f"onnxruntime alone: class {label[0]} of {probabilities.shape[1]}")
"""


def commands() -> list[str]:
    """The lines of README's way from a CSV to ONNX: installation, comparison, prediction, export."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if "ncmi export runs/compare-wine" in block)
    return [line.strip() for line in block.splitlines() if line.strip()]


def main() -> None:
    """Take the way and print its times."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=1, help="of the steps after the installation")
    repeats = options.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder, checkout = Path(name), Path(name, "checkout")
        checkout.mkdir()
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive, check=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}"

        def seconds(command: str) -> float:
            start = time.perf_counter()
            done = subprocess.run(command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            return time.perf_counter() - start

        install, *steps = commands()
        times = {install: [seconds(install)]} | {step: [] for step in steps}
        seconds(f"python -c '{WINE}'")
        for _ in range(repeats):
            shutil.rmtree(checkout / "runs", ignore_errors=True)
            for step in steps:
                times[step].append(seconds(step))
        exported = checkout / "runs/compare-wine/runs/ncmi-seed0/model.onnx"
        python = str(folder / "venv" / "bin" / "python")
        subprocess.run([python, "-c", ALONE, str(exported)], check=True, env=environment)
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if not path.is_symlink())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {repeats} repeats")
    print(f"environment: {size / 1e9:.1f} GB")
    for step, taken in times.items():
        spread = f" ({min(taken):.0f}–{max(taken):.0f})" if len(taken) > 1 else ""
        print(f"{statistics.median(taken):6.0f} s{spread}  {step}")


if __name__ == "__main__":
    main()
