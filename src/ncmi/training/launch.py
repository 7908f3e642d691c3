"""Which processes a launcher has started to train together: what its environment says. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

TOGETHER = ("train", "resume", "reproduce table2")
"""Verbs that several processes carry out together; of one of them with a single table."""
_BY_TORCHRUN = "start it by torchrun --nproc-per-node N -m ncmi, or alone with --training.devices N"


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that a launcher has started.

    Attributes:
        launcher: what has started them.
        world_size, rank: of all processes; the number of this one.
        local_world_size, local_rank: of those on this host.
        nodes: hosts.
    """

    launcher: Literal["torchrun", "srun"]
    world_size: int
    rank: int
    local_world_size: int
    local_rank: int
    nodes: int


def find_launch() -> Launch | None:
    """What torchrun or SLURM's srun says of this process; None where no launcher has started it.

    Raises:
        ValueError: for an environment that says only half of it, or processes of a launcher that is not known.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        names = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
        world_size, rank, local_world_size, local_rank = (_number(name) for name in names)
        nodes = _number("GROUP_WORLD_SIZE") if "GROUP_WORLD_SIZE" in os.environ else world_size // local_world_size
        return Launch("torchrun", world_size, rank, local_world_size, local_rank, nodes)
    if _tasks_of_step() is not None:
        world_size = _number("SLURM_NTASKS")
        if world_size > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise ValueError("SLURM does not say how many tasks a host has: give sbatch or srun --ntasks-per-node")
        local = _number("SLURM_NTASKS_PER_NODE") if world_size > 1 else 1
        nodes = _number("SLURM_NNODES") if "SLURM_NNODES" in os.environ else world_size // local
        return Launch("srun", world_size, _number("SLURM_PROCID"), local, _number("SLURM_LOCALID"), nodes)
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if os.environ.get(name, "1") != "1":
            raise ValueError(f"{os.environ[name]} processes of an MPI launcher, which do not know of each other here: "
                             f"{_BY_TORCHRUN}")  # fmt: skip
    return None


def _tasks_of_step() -> str | None:
    # a batch script and an interactive shell have the variables of the job, and those of a step only under srun
    if "SLURM_STEP_ID" not in os.environ or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return os.environ.get("SLURM_NTASKS")


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ValueError(
            f"the environment variable {name} is {value!r} where a launcher gives a number: {_BY_TORCHRUN}"
        )
    return int(value)


def place_of_process() -> tuple[int, int]:
    """Rank of this process and rank on its host; 0, 0 where it is alone, or its environment cannot be read."""
    try:
        launch = find_launch()
    except ValueError:
        return 0, 0
    if launch is not None:
        return launch.rank, launch.local_rank
    # processes of --training.devices are started by the first one, with this variable
    local = os.environ.get("LOCAL_RANK", "0")
    return (int(local), int(local)) if local.isdecimal() else (0, 0)


def check_verb(verb: str) -> None:
    """See that a verb can be carried out by this process.

    Args:
        verb: its name; of reproduce with that of the table, once it is known.

    Raises:
        ValueError: where a launcher has started several processes for a verb that is one process's, or where a job of
            several tasks would be trained by one of them.
    """
    launch = find_launch()
    able = (*TOGETHER, *(words.split()[0] for words in TOGETHER))
    if launch is not None and launch.world_size > 1 and verb not in able:
        own = " (compare and reproduce start processes of their own: --workers)"
        raise ValueError(
            f"{launch.world_size} processes by {launch.launcher} would each do {verb}, which is work for one: start it "
            f"without {launch.launcher}{own}; together they can {', '.join(TOGETHER[:-1])} and {TOGETHER[-1]}"
        )
    tasks = os.environ.get("SLURM_NTASKS", "1")
    inside = "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    if launch is None and verb in TOGETHER and inside and tasks != "1" and "LOCAL_RANK" not in os.environ:
        raise ValueError(f"this job has {tasks} tasks, and one of them would train: put srun in front of ncmi")
