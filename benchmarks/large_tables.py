"""What a large table costs: python benchmarks/large_tables.py [--rows 1000000 --columns 20 --classes 10 --epochs 3].

Makes a table of Gaussian classes (CSV with a column "label", or .npz), reads it and trains on it in a process of
its own, and prints the seconds of reading, the seconds of each epoch, what comes after the last epoch stage by stage,
that as a share of the training time, and the highest memory in use. With --categories the first column holds so many
names in place of a number.

    python benchmarks/large_tables.py                                                          # the bar: after ≤ 25 %
    python benchmarks/large_tables.py --rows 100000 --classes 1000 --categories 400 --columns 8
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from _timing import command_line, in_own_process, markdown


def write_table(path: Path, rows: int, columns: int, classes: int, categories: int) -> None:
    """A table of ``classes`` overlapping clusters, by blocks, so that making it takes little memory."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(classes, columns)) * 1.2
    if path.suffix == ".npz":
        labels = rng.integers(0, classes, rows)
        values = (centers[labels] + rng.normal(size=(rows, columns))).astype(np.float32)
        np.savez(path, x=values, y=labels)
        return
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join([*(f"x{column}" for column in range(columns)), "label"]) + "\n")
        for start in range(0, rows, 50_000):
            labels = rng.integers(0, classes, min(50_000, rows - start))
            values = centers[labels] + rng.normal(size=(len(labels), columns))
            lines = [
                ",".join([*(f"{value:.5g}" for value in row), f"c{label}"])
                for row, label in zip(values, labels, strict=True)
            ]
            if categories:
                names = (labels * 7 + rng.integers(0, 3, len(labels))) % categories
                lines = [f"n{name},{line.partition(',')[2]}" for name, line in zip(names, lines, strict=True)]
            file.write("\n".join(lines) + "\n")


def measured(path: Path, folder: Path, epochs: int, threads: int) -> dict[str, Any]:
    """Read and train in this process: seconds by stage, and the highest memory in use."""
    import torch

    from ncmi.recipes import Recipe, TableData, Training
    from ncmi.training.environment import peak_megabytes
    from ncmi.training.run import train
    from ncmi.training.sources import load_data

    torch.set_num_threads(threads)
    data = TableData(str(path), label_column=None if path.suffix == ".npz" else "label")
    begun = time.perf_counter()
    loaded = load_data(data)
    read = time.perf_counter() - begun
    peak_of_reading = peak_megabytes(torch.device("cpu"))
    seconds: list[float] = []
    stages: list[tuple[str, float]] = []
    recipe = Recipe(data, training=Training(epochs=epochs, threads=threads, accelerator="cpu"))
    results = train(
        recipe,
        folder,
        data=loaded,
        on_epoch=lambda row: seconds.append(row["seconds"]),
        on_stage=lambda stage: stages.append((stage, time.perf_counter())) if stage.endswith("…") else None,
        catch_signals=False,
    )
    ends = [when for _, when in stages[1:]] + [time.perf_counter()]
    return {
        "read": read,
        "epochs": seconds,
        "stages": [(stage, end - start) for (stage, start), end in zip(stages, ends, strict=True)],
        "peak_of_reading": peak_of_reading,
        "peak": peak_megabytes(torch.device("cpu")),
        "accuracy": {name: readout.test.accuracy.value for name, readout in results.readouts.items()},
    }


def options() -> argparse.Namespace:
    """The command line."""
    command = command_line(__doc__)
    command.add_argument("--rows", type=int, default=1_000_000)
    command.add_argument("--columns", type=int, default=20)
    command.add_argument("--classes", type=int, default=10)
    command.add_argument("--categories", type=int, default=0)
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--npz", action="store_true", help="an .npz in place of a CSV, which is read at once")
    return command.parse_args()


if __name__ == "__main__":
    arguments = options()
    with tempfile.TemporaryDirectory() as temporary:
        table = Path(temporary) / ("table.npz" if arguments.npz else "table.csv")
        write_table(table, arguments.rows, arguments.columns, arguments.classes, arguments.categories)
        taken = in_own_process(measured, table, Path(temporary) / "run", arguments.epochs, arguments.threads)
    training, after = sum(taken["epochs"]), sum(seconds for _, seconds in taken["stages"])
    lines = [["reading", f"{taken['read']:.1f}"]]
    lines += [[f"epoch {number}", f"{seconds:.1f}"] for number, seconds in enumerate(taken["epochs"], 1)]
    lines += [[stage, f"{seconds:.1f}"] for stage, seconds in taken["stages"]]
    lines.append(["from the last epoch to the results", f"{after:.1f}"])
    print(markdown(["what", "seconds"], lines))
    print(f"\nafter / training: {after / training:.0%}")
    print(f"highest memory: {taken['peak_of_reading']:.0f} MB after reading, {taken['peak']:.0f} MB in all")
    print("test accuracy: " + ", ".join(f"{name} {value:.4f}" for name, value in taken["accuracy"].items()))
