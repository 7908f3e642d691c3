"""Hostile and damaged files: nothing is executed, waited for, or lost, and each message's way on works."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from abuse_helpers import QUICK, contents, refused
from cli_helpers import ncmi, read

from ncmi.errors import printable
from ncmi.files import inert_cell


class Bomb:
    """A pickle that would leave a file behind if anybody read it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def claiming(shape: tuple[int, ...]) -> bytes:
    """An .npy file whose header claims more than there is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + b"\0" * 64


def archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def tensors(header: bytes, length: int | None = None) -> bytes:
    """A safetensors file with such a header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 16


def array_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


LABELS = array_bytes(np.zeros(3, np.int64))
DEEP = "[" * 100_000
CHARACTERS = "a\x1b[31m\x07b"
OUTPUTS: dict[str, bytes | dict[str, bytes]] = {
    "empty.npz": b"",
    "text.npz": b"no archive",
    "cut.npz": b"PK\x03\x04" + b"\0" * 20,
    "claims.npz": {"logits.npy": claiming((10**12, 10)), "labels.npy": LABELS},
    "zeros.npz": {"logits.npy": claiming((10**9,)) + b"\0" * 10**6, "labels.npy": LABELS},
    "objects.npz": {"logits.npy": array_bytes(np.array([Bomb()], dtype=object)), "labels.npy": LABELS},
    "names.npz": {f"{CHARACTERS}.npy": LABELS},
    "nothing.npz": {},
    "bomb.pt": pickle.dumps({"logits": Bomb(), "labels": Bomb()}),
    "bomb.pth": pickle.dumps(Bomb()),
    "empty.safetensors": b"",
    "length.safetensors": tensors(b"{}", 2**63 - 1),
    "header.safetensors": tensors(b"{" + b'"a":1,' * 1000 + b'"b":2}'),
    "shape.safetensors": tensors(
        json.dumps({"logits": {"dtype": "F64", "shape": [10**12, 10**12], "data_offsets": [0, 8]}}).encode()
    ),
    "overlap.safetensors": tensors(
        json.dumps({"logits": {"dtype": "F64", "shape": [1], "data_offsets": [8, 0]}}).encode()
    ),
    "deep.safetensors": tensors(DEEP.encode()),
    "x.npy": b"\x93NUMPY\x01\x00",
    "x.exe": b"MZ",
}
CONFIGS = {
    "unknown.toml": "[training]\nlerning_rate = 1",
    "section.toml": "[trainnig]\nepochs = 1",
    "value.toml": "[training]\nlearning_rate = -1",
    "type.toml": '[training]\nepochs = "many"',
    "huge.toml": f"[training]\nepochs = {10**400}",
    "nan.toml": "[training]\nlearning_rate = nan",
    "broken.toml": "[training",
    "flat.toml": "training = 3",
    "objective.toml": '[objective]\nname = "typo"',
    "kind.toml": '[data]\nkind = "image"',
    "list.json": "[]",
    "broken.json": '{"training": ',
    "deep.json": DEEP,
    "nan.json": '{"training": {"learning_rate": NaN}}',
    "huge.json": '{"training": {"learning_rate": 1e999}}',
    "format.json": '{"format": 99, "training": {}}',
    "null.json": '{"training": null}',
    "binary.json": "\x00\x01",
    "config.ini": "epochs=1",
    "nothing.yaml": "- 1",
}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if isinstance(content, dict):
        archive(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_to_measure(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, OUTPUTS[name])
    refused("measure", name, cwd=tmp_path, says=name)


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name.endswith((".pt", ".pth", ".safetensors"))])
def test_weights_to_start_from(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, OUTPUTS[name])
    refused("train", "iris", *QUICK, "--network.weights", name, cwd=tmp_path, says=name)


@pytest.mark.parametrize("name", ["empty.npz", "text.npz", "claims.npz", "objects.npz", "nothing.npz", "x.exe"])
def test_data_to_train_on(name: str, tmp_path: Path) -> None:
    content = OUTPUTS[name]
    if isinstance(content, dict):
        content = {member.replace("logits", "x").replace("labels", "y"): what for member, what in content.items()}
    write(tmp_path, name, content)
    refused("train", name, *QUICK, cwd=tmp_path, says=name)


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, CONFIGS[name])
    refused("train", "iris", "--config", name, cwd=tmp_path, says=name)


def special(folder: Path, kind: str, name: str) -> None:
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "loop", "device", "folder"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.npz", ("measure", "x.npz")),
        ("x.pt", ("measure", "x.pt")),
        ("x.npz", ("train", "x.npz", *QUICK)),
        ("c.toml", ("train", "iris", "--config", "c.toml")),
        ("w.pth", ("train", "iris", *QUICK, "--network.weights", "w.pth")),
    ],
)
def test_what_is_no_file_is_not_waited_for(kind: str, name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    special(tmp_path, kind, name)
    refused(*words, cwd=tmp_path, says=name)


# --- run folders


@pytest.fixture
def run(run_on_iris: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_on_iris, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(bytes(content))


def put(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text, encoding="utf-8")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WIDE = json.dumps({f"column {number}": 1 for number in range(100_000)})
DAMAGE = [
    ("recipe.json", cut, ("resume", "run")),
    ("recipe.json", put("{}"), ("resume", "run")),
    ("recipe.json", put(DEEP), ("resume", "run")),
    ("recipe.json", put('{"format": 2, "training": {"epochs": 1e400}}'), ("resume", "run")),
    ("recipe.json", as_pipe, ("resume", "run")),
    ("results.json", cut, ("report", "run")),
    ("results.json", cut, ("resume", "run")),
    ("results.json", put(DEEP), ("report", "run")),
    ("results.json", put("[]"), ("report", "run")),
    ("metrics.jsonl", put("garbled\n\n{}"), ("report", "run")),
    ("metrics.jsonl", put(WIDE), ("report", "run")),
    ("metrics.jsonl", put(DEEP), ("report", "run")),
    ("model.safetensors", cut, ("evaluate", "run")),
    ("model.safetensors", flip, ("evaluate", "run")),
    ("model.safetensors", put(""), ("evaluate", "run")),
    ("model.safetensors", as_pipe, ("evaluate", "run")),
    ("test_outputs.npz", cut, ("report", "run")),
    ("test_outputs.npz", put("x"), ("report", "run")),
    ("environment.json", cut, ("report", "run")),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE, ids=[f"{d[0]}-{n}" for n, d in enumerate(DAMAGE)])
@pytest.mark.usefixtures("run")
def test_damaged_files_of_a_run(
    name: str, damage: Callable[[Path], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    damage(tmp_path / "run" / name)
    refused(*words, cwd=tmp_path, says=name)


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "model.safetensors", "test_outputs.npz"])
def test_what_a_finished_run_lost_is_written_anew_as_the_message_says(name: str, run: Path, tmp_path: Path) -> None:
    before = read(run / "results.json")
    (run / name).write_text("{garbled")
    (run / "results.json").unlink()  # as the message says
    ncmi("resume", "run", cwd=tmp_path)
    assert read(run / "results.json")["readouts"] == before["readouts"]
    ncmi("evaluate", "run", cwd=tmp_path)


def test_a_damaged_checkpoint_has_two_ways_on(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = read(run / "results.json")["readouts"]
    checkpoint = run / "checkpoints/last.safetensors"
    previous = run / "checkpoints/previous.safetensors"
    shutil.copy(checkpoint, previous)
    (run / "results.json").unlink()
    flip(checkpoint)
    ncmi("resume", "run", cwd=tmp_path)  # by the one before it, which is said
    assert "going on from the checkpoint before it" in caplog.text
    assert read(run / "results.json")["readouts"] == whole
    (run / "results.json").unlink()
    flip(checkpoint)
    done = ncmi("resume", "run", cwd=tmp_path, check=2)
    assert "remove this file and resume" in done.stderr
    checkpoint.unlink()
    ncmi("resume", "run", cwd=tmp_path)
    assert read(run / "results.json")["readouts"] == whole


@pytest.mark.parametrize("there", [(), (".recipe.json.abc.partial",), (".lock",), ("recipe.json",)])
def test_folders_that_were_killed_in_their_first_moments(
    there: tuple[str, ...], run_on_iris: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for name in there:
        source = run_on_iris / name
        (tmp_path / "run" / name).write_bytes(source.read_bytes() if source.exists() else b"")
    if "recipe.json" in there:
        refused("train", "iris", "--out", "run", *QUICK, cwd=tmp_path, says="ncmi resume run")
        ncmi("resume", "run", cwd=tmp_path)
    else:
        ncmi("train", "iris", "--out", "run", *QUICK, cwd=tmp_path)
    assert read(tmp_path / "run/results.json")["readouts"] == read(run_on_iris / "results.json")["readouts"]


@pytest.mark.usefixtures("run")
def test_a_second_run_of_the_same_name(tmp_path: Path) -> None:
    refused("train", "iris", "--out", "run", *QUICK, cwd=tmp_path, says="ncmi resume run")
    refused("compare", "iris", "--out", "run", *QUICK, cwd=tmp_path, says="--out")


def test_a_run_is_trained_for_longer(run: Path, tmp_path: Path) -> None:
    before = read(run / "results.json")
    for epochs in ("0", "1"):
        refused("resume", "run", "--epochs", epochs, cwd=tmp_path, says="epochs")
    done = ncmi("resume", "run", "--epochs", "3", cwd=tmp_path)
    assert "one_cycle" in done.stdout
    assert "learning rate goes from" in done.stdout
    assert read(run / "recipe.json")["training"]["epochs"] == 3
    assert read(run / "recipe-before.json")["training"]["epochs"] == 1
    assert read(run / "results-before.json") == before
    assert read(run / "results.json")["epochs"] == 3
    rates = [json.loads(line)["learning_rate"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rates) == 3
    # the new schedule from the first step on: its rate after an epoch is not the old one's end
    assert rates[0] < 1e-6 < rates[1]
    # an unfinished run may be made longer as well
    (run / "results.json").unlink()
    ncmi("resume", "run", "--epochs", "4", "--quiet", cwd=tmp_path)
    assert read(run / "results.json")["epochs"] == 4


def test_a_configuration_is_any_runs_recipe(run: Path, tmp_path: Path) -> None:
    recipe = read(run / "recipe.json")
    words = ("train", "--config", "run/recipe.json", "--training.seed", "7", "--out", "again")
    ncmi(*words, cwd=tmp_path)
    expected = recipe | {"training": recipe["training"] | {"seed": 7}}
    assert read(tmp_path / "again/recipe.json") == expected
    (tmp_path / "c.toml").write_text('[objective]\nname = "focal"\ngamma = 3.0\n[training]\nepochs = 9\n')
    plan = ("train", "wine", "--config", "c.toml", "--training.epochs", "2", "--dry-run")
    before = contents(tmp_path)
    done = ncmi(*plan, cwd=tmp_path)
    assert "objective focal" in done.stdout
    assert "epochs 2" in done.stdout
    assert contents(tmp_path) == before


def test_cells_and_lines_are_inert() -> None:
    for text in ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"):
        assert inert_cell(text).startswith("'")
    for text in ("setosa", "-1.5", "+3e-4", "a=b", "", "-inf"):
        assert inert_cell(text) == text
    assert inert_cell("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert printable("ok\u202egpj") == "ok\\u202egpj"
    for text in ("Größe 🏳️‍🌈 π ≤ 3", "a\tb\nc", "日本"):
        assert printable(text) == text
