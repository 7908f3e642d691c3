"""What launchers say of processes, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ncmi.cli import main
from ncmi.training.launch import Launch, check_verb, find_launch, place_of_process

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "6",
    "RANK": "4",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "GROUP_WORLD_SIZE": "3",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


@pytest.fixture(autouse=True)
def without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM, "SLURM_JOB_NAME", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_alone() -> None:
    assert find_launch() is None
    assert place_of_process() == (0, 0)


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, TORCHRUN)
    assert find_launch() == Launch("torchrun", world_size=6, rank=4, local_world_size=2, local_rank=0, nodes=3)
    assert place_of_process() == (4, 0)


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SLURM)
    assert find_launch() == Launch("srun", world_size=8, rank=5, local_world_size=4, local_rank=1, nodes=2)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ValueError, match="--ntasks-per-node"):
        find_launch()


def test_torchrun_inside_of_slurm_is_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SLURM | TORCHRUN)
    launch = find_launch()
    assert launch is not None
    assert launch.launcher == "torchrun"


def test_a_batch_script_without_srun_trains_nothing_by_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, SLURM)
    monkeypatch.delenv("SLURM_STEP_ID")
    assert find_launch() is None
    with pytest.raises(ValueError, match="srun"):
        check_verb("train")
    check_verb("compare")


@pytest.mark.parametrize(
    "variables", [TORCHRUN | {"RANK": "first"}, {"RANK": "0", "WORLD_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "2"}]
)
def test_half_an_environment_names_torchrun(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, variables)
    with pytest.raises(ValueError, match="torchrun --nproc-per-node"):
        find_launch()


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("compare wine", "--workers"),
        ("reproduce table1", "without torchrun"),
        ("reproduce table2 --workers 2 --imagenet images", "--workers"),
        ("report run", "without torchrun"),
        ("train wine --training.devices 3", "leave --training.devices out"),
        ("resume run --epochs 9", "--epochs"),
        ("train iris --training.epochs -1", "--training.epochs"),
    ],
)
def test_refused_before_anything_is_written(
    words: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(monkeypatch, TORCHRUN)
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert cure in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_of_a_host_one_process_complains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    put(monkeypatch, TORCHRUN | {"LOCAL_RANK": "1"})
    assert main(["compare", "wine"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
