"""Signals, full and read-only disks, closed streams, odd terminals and folders: no traceback, no orphan, a way on."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from abuse_helpers import QUICK, contents, refused
from cli_helpers import PATIENCE, ncmi, read, wait_for

from ncmi.cli import main
from ncmi.errors import Interrupted, in_one_line
from ncmi.training import workers
from ncmi.training.stopping import StopRequest
from ncmi.training.workers import WorkError, run_side_by_side

ENDLESS = ("--training.epochs", "100000", "--training.accelerator", "cpu", "--training.threads", "1")
PROGRAM = (sys.executable, "-m", "ncmi")


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which NCMI is this program."""
    env = {**os.environ, "NCMI": shlex.join(PROGRAM), **environment}
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, env=env, check=False
    )


# --- disks and places


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs to see which file is written")
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_full_disk(epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first file on, or in the middle: then there is a checkpoint, and the message's way on works."""
    words = ("train", "iris", "--out", "run", "--training.epochs", "3", *QUICK[2:])
    checkpoint = tmp_path / "run/checkpoints/last.safetensors"
    fsync = os.fsync

    def filling(handle: int) -> None:
        if epoch == 0 or (
            checkpoint.exists() and ".last.safetensors." in str(Path(f"/proc/self/fd/{handle}").readlink())
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        done = ncmi(*words, cwd=tmp_path, check=2)
    assert "make room" in done.stderr
    assert done.stderr.count("\n") == 1
    if epoch == 0:
        assert not list(tmp_path.iterdir())
        ncmi(*words, cwd=tmp_path)
    else:
        ncmi("resume", "run", cwd=tmp_path)
    assert read(tmp_path / "run/results.json")["epochs"] == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        refused("train", "iris", "--out", "run", *QUICK, cwd=tmp_path, says="permission")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("out", ["file", "file/below", "/dev/null", "/dev/full/x", "/proc/x", "loop"])
def test_places_where_nothing_can_be_written(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    refused("train", "iris", "--out", out, *QUICK, cwd=tmp_path, says=out.partition("/below")[0])
    refused("compare", "iris", "--seeds", "1", "--objectives", "ncmi", "--out", out, *QUICK, cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused("measure", "x.npz", "--json", "file/x.json", cwd=tmp_path, says="x.npz")


@pytest.mark.parametrize(
    "name", ["with blanks", "line\nend", "🏳️‍🌈", "-dash", "quote'\"", "$(touch executed)", "\x1b[31m"]
)
def test_odd_names_of_folders(name: str, tmp_path: Path) -> None:
    ncmi("train", "iris", f"--out=./{name}", *QUICK, cwd=tmp_path)
    done = refused("train", "iris", f"--out=./{name}", *QUICK, cwd=tmp_path, says="ncmi resume")
    assert "\x1b" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- streams and surroundings, each in a process of its own


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$NCMI recipes | head -1; exit ${PIPESTATUS[0]}", 0),
        ("$NCMI recipes > /dev/full", 2),
        ("$NCMI recipes >&-", 0),
        ("$NCMI resume nowhere 2>&-", 2),
        ("env -u HOME $NCMI resume nowhere", 2),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $NCMI recipes", 0),
        ("TERM=dumb COLUMNS=20 $NCMI train --help", 0),
        ("COLUMNS=20 $NCMI train iris --training.optimizer typo", 2),
        ("mkdir gone; cd gone; rmdir ../gone; $NCMI resume nowhere", 2),
    ],
)
def test_surroundings(command: str, code: int, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if code == 2 and "2>&-" not in command:
        assert done.stderr.startswith("ncmi: error: ")
    if "COLUMNS=20 $NCMI train iris" in command:
        assert "adamw" in done.stderr
    assert contents(tmp_path) == {}


def test_a_reader_that_goes_does_not_end_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as out, contextlib.redirect_stdout(out), contextlib.chdir(tmp_path):
        assert main(["train", "iris", "--out", "run", "--training.epochs", "10", *QUICK[2:]]) == 0
    assert capsys.readouterr().err == ""
    assert read(tmp_path / "run/results.json")["epochs"] == 10


def test_imports_are_found_in_the_present_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('was imported')\n")
    for name in ("mine", "mine.py"):
        assert "was imported" in shell(f"cd .; $NCMI --imports {name} recipes", tmp_path).stdout


# --- signals


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_a_run_that_is_asked_to_end(tmp_path: Path) -> None:
    process = begin(tmp_path, "train", "iris", "--out", "run", *ENDLESS)
    wait_for(tmp_path / "run/checkpoints/last.safetensors", process)
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, errors
    assert "ncmi resume run" in errors
    assert errors.count("\n") == 1


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.long
def test_a_comparison_ends_with_its_workers(tmp_path: Path) -> None:
    """One worker is killed, and the other goes on; then the process that asks is, and the other ends."""
    words = (
        "compare",
        "iris",
        "--objectives",
        "ncmi",
        "focal",
        "--seeds",
        "1",
        "--workers",
        "2",
        "--out",
        "c",
        *ENDLESS,
    )
    process = begin(tmp_path, *words)
    runs = tmp_path / "c/runs"
    for name in ("ncmi-seed0", "focal-seed0"):
        wait_for(runs / name / "checkpoints/last.safetensors", process)
    children = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(children) == 2
    children[0].kill()  # as a system does that has no memory left
    assert gone(children[:1])
    written = lines_of(runs)
    deadline = time.monotonic() + PATIENCE
    while written == lines_of(runs):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert gone(children[1:])
    assert all((run / "checkpoints/last.safetensors").is_file() for run in runs.iterdir())


def lines_of(runs: Path) -> list[int]:
    return [len((run / "metrics.jsonl").read_text().splitlines()) for run in sorted(runs.iterdir())]


def die(path: str, content: Any) -> Any:
    """For fresh processes to import."""
    if content == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return content


def test_a_process_that_is_killed_fails_its_own_task_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_WARM", "ncmi.errors")
    heard: dict[str, Any] = {}
    failures = run_side_by_side(die, {"x/a": "die", "x/b": 2, "x/c": 3}, 2, heard.__setitem__)
    assert heard == {"b": 2, "c": 3}
    assert failures.keys() == {"x/a"}
    assert "--workers" in failures["x/a"]
    with pytest.raises(WorkError, match="memory"):
        run_side_by_side(die, {"x/a": 1}, 1, heard.__setitem__, lambda ask: ask(die, "x", "die"))


def linger(path: str, content: Any) -> None:
    """For fresh processes to import."""
    Path(path).touch()
    time.sleep(PATIENCE)


def test_processes_end_with_the_one_that_asks(tmp_path: Path) -> None:
    code = (
        "from ncmi.training import workers; from test_abuse_system import linger; workers._WARM = 'ncmi.errors'\n"
        "workers.run_side_by_side(linger, {'a': 1, 'b': 2}, 2, print)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env
    ) as asking:
        wait_for(tmp_path / "a", asking)
        wait_for(tmp_path / "b", asking)
        children = [
            child for child in psutil.Process(asking.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(children) == 2
        asking.kill()
        assert gone(children)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)  # nohup
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_exit_codes_tell_the_signal(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("ncmi.training.evaluation.measure_file", stopped)
    # not ignored, as this process may have it from nohup
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        done = ncmi("measure", "x.npz", cwd=tmp_path, check=128 + number)
    finally:
        signal.signal(number, before)
    assert "ncmi resume" in done.stderr
    assert Interrupted("stopped", number).signal_number == number


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: not enough memory: you tried to allocate 9"
        ),
        RuntimeError("Storage size calculation overflowed with sizes=[9223372036854775807, 2]"),
        ValueError("Maximum allowed dimension exceeded"),
    ],
)
def test_too_little_memory_is_one_line_with_a_cure(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ncmi.training.run.build_model", short)
    refused("train", "iris", *QUICK, cwd=tmp_path, says="--training.batch-size")
    assert "not enough memory" in in_one_line(error)


def test_cures_for_too_little_memory_are_options_of_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    (tmp_path / "x.npz").write_bytes(b"")
    monkeypatch.setattr("ncmi.training.evaluation.read_outputs", fail)
    assert main(["measure", str(tmp_path / "x.npz")]) == 2
    said = capsys.readouterr().err
    assert "not enough memory" in said
    assert "--" not in said
    assert "--training.batch-size" in in_one_line(MemoryError())
    assert "--workers" in in_one_line(MemoryError(), ["--workers"])
