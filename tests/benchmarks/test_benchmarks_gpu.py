"""The GPU script rehearses without a GPU, goes on where it stopped, and needs torch alone for what does not train."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = ["--device", "cpu", "--quick", "--minutes", "5"]


def run_main(gpu: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    code: int = gpu.main()
    return code


@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
def test_rehearsal(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu, threads = bench("gpu"), torch.get_num_threads()
    monkeypatch.setattr(gpu, "MODES", gpu.MODES[::5])
    # the others' recipes differ from these in the loss alone
    runs = [("cross-entropy", 0), ("ncmi", 0), ("resnet18-ncmi", 0)]
    monkeypatch.setattr(bench("_gpu_train"), "runs_in_order", lambda seeds: runs)
    assert run_main(gpu, monkeypatch, *QUICK, "--out", str(tmp_path)) == 0
    assert torch.get_num_threads() == threads
    for verb in ("check", "speed"):
        content = json.loads((tmp_path / f"{verb}.json").read_text(encoding="utf-8"))
        assert {"date", "torch", "commit", "device", "cpu"} <= set(content["machine"])
        assert content["finished"]
        assert content["rows"]
        assert not [row["what"] for row in content["rows"] if row["passed"] is False]
        assert content["rows"][0]["what"] in (tmp_path / f"{verb}.md").read_text(encoding="utf-8")
    made = {path.parent.name for path in tmp_path.glob("train/runs/*/results.json")}
    assert made == {"cross-entropy-seed0", "ncmi-seed0", "resnet18-ncmi-seed0"}
    text = (tmp_path / "train.md").read_text(encoding="utf-8")
    for label in ("Cross-entropy", "NCMI", "NCMI-CC"):
        assert f"\n| {label} | 1 |" in text
    # the same command finds everything done
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert run_main(gpu, monkeypatch, *QUICK, "--out", str(tmp_path)) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_pairs_come_first_seed_by_seed(bench: Any) -> None:
    order = bench("_gpu_train").runs_in_order((0, 1))
    assert order == [
        ("cross-entropy", 0),
        ("ncmi", 0),
        ("label-smoothing", 0),
        ("cross-entropy", 1),
        ("ncmi", 1),
        ("label-smoothing", 1),
        ("ncmi-released", 0),
        ("resnet18-cross-entropy", 0),
        ("resnet18-ncmi", 0),
        ("resnet18-cross-entropy", 1),
        ("resnet18-ncmi", 1),
        ("resnet18-ncmi-released", 0),
    ]
    recipe = bench("_gpu_train").METHODS["resnet18-ncmi"][1]
    training = recipe.training
    assert (recipe.network.name, training.epochs, training.schedule) == ("resnet18", 30, "one_cycle")
    assert (training.precision, training.compile, recipe.data.train_on_all) == ("bf16-mixed", True, True)


def test_without_time_nothing_begins_and_the_same_command_goes_on(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = bench("gpu")
    assert (
        run_main(gpu, monkeypatch, "check", "--device", "cpu", "--quick", "--minutes", "0", "--out", str(tmp_path)) == 3
    )
    assert not (tmp_path / "check.json").exists()
    train = bench("_gpu_train")
    session = gpu.Session(tmp_path, torch.device("cpu"), True, gpu.STARTED, None)
    assert train.train_all(session) is False
    assert not list(tmp_path.glob("train/runs/*"))


def test_measuring_goes_on_where_it_stopped(bench: Any, tmp_path: Path) -> None:
    gpu, row = bench("gpu"), bench("_timing").of_values
    calls: list[str] = []

    def item(name: str, fails: bool = False) -> tuple[str, Any]:
        def rows() -> Any:
            calls.append(name)
            if fails:
                raise RuntimeError("out of memory")
            yield row(name, [1.0])

        return name, rows()

    def session(ends: float) -> Any:
        return gpu.Session(tmp_path, torch.device("cpu"), True, ends)

    late, early = session(0.0), session(float("inf"))
    items = [item("a"), item("b", fails=True), item("c")]
    assert late.measure("check", items, reserve=1) is False
    assert calls == []
    assert early.measure("check", items, reserve=1) is False
    assert "failed: out of memory" in (tmp_path / "check.md").read_text(encoding="utf-8")
    # what failed is tried again
    assert early.measure("check", [item("a"), item("b"), item("c")], reserve=1) is True
    assert calls == ["a", "b", "c", "a", "b", "c"]
    assert "failed" not in (tmp_path / "check.md").read_text(encoding="utf-8")
    # and what is finished is not measured again
    assert late.measure("check", [item("a")], reserve=1) is True
    assert len(calls) == 6


@pytest.mark.long
def test_check_and_speed_need_torch_alone(tmp_path: Path) -> None:
    """And train says what is missing instead of failing."""
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks lie beside the package in a checkout only")
    blocked = (
        "msgspec tyro rich altair vl_convert lightning_fabric numpy pandas scipy sklearn jinja2 kornia safetensors"
    )
    code = f"""
import sys
for name in {blocked.split()!r}:
    sys.modules[name] = None
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu
gpu.MODES[2:] = []
speed_items = gpu.speed_items
gpu.speed_items = lambda session: speed_items(session)[:1]  # compiled steps need nothing more
sys.exit(gpu.main())
"""
    words = [*QUICK, "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train is left out" in done.stderr
    assert "ncmi[app]" in done.stderr
    for verb in ("check", "speed"):
        assert json.loads((tmp_path / f"{verb}.json").read_text(encoding="utf-8"))["finished"]


def test_a_gpu_is_asked_for(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        run_main(bench("gpu"), monkeypatch)
    assert stopped.value.code == 2
    assert "--device cpu --quick" in capsys.readouterr().err
