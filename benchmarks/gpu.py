"""Half an hour on one borrowed NVIDIA GPU, in calls of at most ten minutes that go on from each other.

    python benchmarks/gpu.py STEP --state STATE --out OUT [--data-dir D] [--packed DIR] [--minutes 9.5] [--rehearse]

Steps, in the order of `all`, which goes on with whatever is not done:

- check: the loss on CUDA, value and gradients, against float64 on the CPU; its time beside linear + cross-entropy.
- speed: images a second of the training step beside the plain loop; memory; overhead of the loop. Random images.
- fast: the recipe cifar100.fast, five seeds; time to finish and test accuracy.
- released: how many runs at once are fastest; then ResNet-18 for 200 epochs with cross-entropy and NCMI as released,
  the power separation, label smoothing and focal, more seeds, ResNet-50: through `ncmi.reproduction`, under
  STATE/released, so that `ncmi` reads it as any reproduction.

STATE is a folder that survives between calls on one machine (checkpoints of 90 MB lie in it). After every call OUT
has what is small: results.tar.gz (STATE less data, checkpoints and weights), and test outputs of the first four runs.
Before its time is up the script interrupts its runs, which write checkpoints; the next call resumes them.

Where nothing can be fetched, everything has to be brought:

1. Packages. A machine with torch ≥ 2.8, numpy, scikit-learn, scipy, pandas, pyarrow, pillow, psutil, safetensors,
   tensorboard, torchmetrics and pytorch-lightning (whose wheel has `lightning_fabric` in it; where that is missing,
   bring lightning-fabric and lightning-utilities, both pure Python) lacks only msgspec: compiled, 0.2 MB, a file of
   its own for each version of Python. kornia, tyro and rich are not needed. Here, for Python 3.12:
       pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
           --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 -d WHEELS msgspec
   there:
       pip install --no-index --no-deps --target SITE WHEELS/*.whl; export PYTHONPATH=SITE:src
2. Data, where a call carries at most 64 MB: here, for an archive of cifar-100-binary or cifar-100-python (169 MB),
       python benchmarks/gpu.py pack --archive cifar-100-binary.tar.gz --packed PARTS --part-mb 60
   and bring PARTS/0 with the first call, PARTS/1 with the second, PARTS/2 with the third, each as --packed: every call
   keeps its part under STATE/parts, and the last one unpacks all of them to D (by default STATE/data).
3. Calls. PARTS, WHEELS and STATE lie in a folder that git ignores. In turn, with --state STATE --out OUT each:
       python benchmarks/gpu.py check --packed PARTS/0 --minutes 4
       python benchmarks/gpu.py speed --packed PARTS/1 --minutes 6
       python benchmarks/gpu.py all --packed PARTS/2 --minutes 9.5
   and the last one again, without --packed, until the loan ends. Where all parts can come with one call, `all` is
   all. Calls have to follow each other before the machine is given back, as STATE is lost with it.

`--rehearse` does all of it on a CPU with tiny settings and random images, a few seconds a step.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

STARTED = time.monotonic()  # what is imported later counts too

STEPS = ("check", "speed", "fast", "released")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("all", *STEPS, "pack", "unpack", "_reproduce"))
    parser.add_argument("--out", type=Path, default=Path("gpu-out"), help="folder for what is to be kept")
    parser.add_argument("--state", type=Path, help="folder that survives between calls; by default OUT/state")
    parser.add_argument("--data-dir", type=Path, help="folder with CIFAR-100; by default STATE/data")
    parser.add_argument("--packed", type=Path, help="folder with parts of the archive of CIFAR-100")
    parser.add_argument("--archive", type=Path, help="archive to split (pack)")
    parser.add_argument("--part-mb", type=int, default=60, help="size of a part (pack)")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which to stop")
    parser.add_argument("--no-compile", action="store_true", help="released: do not compile the networks")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny settings")
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step == "pack":
        return _pack(arguments)

    import torch

    import _gpu_settings  # noqa: F401
    from _gpu_state import Session, unpack

    if not arguments.rehearse and not torch.cuda.is_available():
        print("no CUDA device: use --rehearse to try the script on a CPU", file=sys.stderr)
        return 2
    if arguments.rehearse:
        torch.set_num_threads(1)
    state = (arguments.state or arguments.out / "state").resolve()
    state.mkdir(parents=True, exist_ok=True)
    session = Session(
        state=state,
        out=arguments.out,
        data_dir=(arguments.data_dir or state / "data").resolve(),
        device=torch.device("cpu" if arguments.rehearse else "cuda"),
        rehearse=arguments.rehearse,
        minutes=arguments.minutes,
        started=STARTED,
    )
    if arguments.step == "_reproduce":
        from _gpu_released import run_reproduction

        return run_reproduction(session, arguments.workers, not arguments.no_compile)
    if (
        arguments.packed is not None
        and not (session.data_dir / "unpacked").exists()
        and unpack(session, arguments.packed)
    ):
        (session.data_dir / "unpacked").touch()
    try:
        for step in STEPS if arguments.step == "all" else [s for s in STEPS if s == arguments.step]:
            print(f"\n## {step}\n\n| what | bar | median (range) | | note |\n|---|---|---|---|---|", flush=True)
            if not _run(step, session, not arguments.no_compile):
                print(f"\n{step}: not finished; the next call goes on")
                break
    finally:
        session.collect()
    return 0


def _run(step: str, session: object, compiled: bool) -> bool:
    """One step as far as the time goes; whether it is finished."""
    from _gpu_state import Session

    assert isinstance(session, Session)
    if step == "check":
        from _gpu_check import check_items

        return session.measure("check", check_items(session), reserve=30)
    if step == "speed":
        from _gpu_speed import speed_items

        return session.measure("speed", speed_items(session), reserve=60)
    if not session.rehearse and not any(session.data_dir.rglob("*cifar-100*")):
        print(f"no CIFAR-100 below {session.data_dir}: bring it with --packed or --data-dir")
        return False
    if step == "fast":
        from _gpu_fast import fast

        return fast(session)
    from _gpu_released import released

    return released(session, compiled)


def _pack(arguments: argparse.Namespace) -> int:
    from _gpu_state import pack

    if arguments.archive is None or arguments.packed is None:
        print("pack needs --archive and --packed", file=sys.stderr)
        return 2
    pack(arguments.archive, arguments.packed, arguments.part_mb)
    return 0


if __name__ == "__main__":
    sys.exit(main())
