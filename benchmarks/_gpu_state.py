"""State of the GPU benchmark between calls: what is measured, what is unpacked, how much time is left."""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from _bench import Row
from ncmi.errors import Interrupted
from ncmi.files import write_json
from ncmi.training.environment import describe_environment

SMALL = 1_000_000  # bytes of the largest file that goes into the archive of small files
LARGE = 15_000_000  # of the largest file that comes back by itself
MEGABYTE = 1_000_000


@dataclass
class Session:
    """One call of the script.

    Attributes:
        state: folder that survives between calls.
        out: folder for what is to be kept.
        data_dir: holds CIFAR-100.
        device: where everything runs.
        rehearse: tiny settings.
        minutes: after which to stop, counted from ``started``.
        started: monotonic clock when the process began.
    """

    state: Path
    out: Path
    data_dir: Path
    device: torch.device
    rehearse: bool
    minutes: float
    started: float

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.started + 60 * self.minutes - time.monotonic()

    def measure(self, step: str, items: Sequence[tuple[str, Callable[[], Sequence[Row]]]], reserve: float) -> bool:
        """Measure what earlier calls have not; whether all is measured now.

        Args:
            items: name and measurement of each.
            reserve: seconds that must be left to begin another one.
        """
        path = self.state / f"{step}.json"
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"items": {}}
        for name, measure in items:
            if "rows" in known["items"].get(name, {}):
                continue
            if self.left < reserve:
                return False
            try:
                rows = list(measure())
            except Interrupted:
                raise
            except Exception as error:  # one that fails must not cost the others; the next call tries it again
                print(f"| {name} | | failed: {' '.join(str(error).split())[:300]} | ✗ | |", flush=True)
                known["items"][name] = {"error": str(error)}
            else:
                for row in rows:
                    print(row.line(), flush=True)
                known["items"][name] = {"rows": [{**asdict(row), "passed": row.passed} for row in rows]}
            known["machine"] = describe_environment(self.device)
            write_json(path, known)
        return True

    def collect(self) -> None:
        """Put what is small into the output folder: results, metrics, recipes; and the first runs' test outputs."""
        self.out.mkdir(parents=True, exist_ok=True)
        inside = [
            path
            for path in sorted(self.state.rglob("*"))
            if path.is_file()
            and path.stat().st_size <= SMALL
            and path.suffix != ".safetensors"
            and not {"data", "parts", "checkpoints"} & set(path.relative_to(self.state).parts)
        ]
        with tarfile.open(self.out / "results.tar.gz", "w:gz") as archive:
            for path in inside:
                archive.add(path, path.relative_to(self.state))
        outputs = [path for path in sorted(self.state.rglob("test_outputs.npz")) if path.stat().st_size <= LARGE]
        for path in outputs[:4]:
            shutil.copyfile(path, self.out / f"outputs-{path.parent.name}.npz")


def pack(archive: Path, folder: Path, megabytes: int) -> None:
    """Split an archive into ``FOLDER/0/part-0-of-N``, ``FOLDER/1/part-1-of-N``, …"""
    size = archive.stat().st_size
    count = -(-size // (megabytes * MEGABYTE))
    with archive.open("rb") as source:
        for number in range(count):
            part = folder / str(number) / f"part-{number}-of-{count}"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(source.read(megabytes * MEGABYTE))
            print(part)


def unpack(session: Session, packed: Path) -> bool:
    """Keep the parts found in a folder; with the last of them, join and unpack. Whether the data is there now."""
    parts = session.state / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for part in sorted(packed.rglob("part-*-of-*")):
        shutil.copyfile(part, parts / part.name)
    names = [path.name for path in parts.iterdir()]
    count = int(names[0].rpartition("-")[2]) if names else 0
    missing = [number for number in range(count) if f"part-{number}-of-{count}" not in names]
    if not names or missing:
        print(f"{len(names)} parts are here, missing are {missing or 'all'}: bring them with the next call")
        return False
    session.data_dir.mkdir(parents=True, exist_ok=True)
    joined = parts / "joined"
    with joined.open("wb") as target:
        for number in range(count):
            target.write((parts / f"part-{number}-of-{count}").read_bytes())
    try:
        with tarfile.open(joined) as archive:
            archive.extractall(session.data_dir, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        shutil.rmtree(parts)
        print(f"the parts do not make an archive ({error}): bring them all again")
        return False
    shutil.rmtree(parts)
    return True
