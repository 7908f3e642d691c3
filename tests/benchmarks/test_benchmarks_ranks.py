"""A run of two processes by torchrun, one of which is killed on the way, is the run of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ncmi.cli import main


@pytest.mark.long
def test_killed_under_torchrun_and_started_again(bench: Any, tmp_path: Path) -> None:
    ranks = bench("ranks")
    more = ("--resume", "auto", "--training.checkpoint-steps", "1")
    agent = ("--standalone", "--max-restarts", "4")
    words = ranks.torchrun(ranks.command(tmp_path / "two", *more), agent=agent)
    code, out = ranks.run(words, tmp_path / "log", "2:1:KILL")
    assert code == 0, out
    assert (tmp_path / "log" / "2-1-KILL").exists()
    # one of them prints
    assert out.count("run folder:") == 1
    used = ranks.uses(tmp_path / "log")
    assert {(len(counts), *counts.values()) for counts in used.values()} == {(115, *[1] * 115)}

    assert main(ranks.command(tmp_path / "one")[2:]) == 0  # without the module that kills
    assert ranks.difference(tmp_path / "one", tmp_path / "two") < 1e-6


@pytest.mark.long
@pytest.mark.parametrize("objective", ["ncmi", "supcon"])
def test_killed_at_five_steps_ends_where_the_undisturbed_run_ends(objective: str, bench: Any, tmp_path: Path) -> None:
    assert bench("ranks").killed(tmp_path, 1, objective)


@pytest.mark.long
def test_on_another_number_of_processes_each_sample_is_used_once(bench: Any, tmp_path: Path) -> None:
    once, worst = bench("ranks").resized(tmp_path, 1, "ncmi")
    assert once
    assert worst < 1e-5


@pytest.mark.long
def test_agents_on_one_host_and_on_two_are_one_process(bench: Any, tmp_path: Path) -> None:
    differences = bench("ranks").equal(tmp_path, ["ncmi", "cross_entropy"])
    assert len(differences) >= 4
    assert max(differences) < 1e-6
