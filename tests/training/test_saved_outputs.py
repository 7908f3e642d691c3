"""Outputs that a user saved: every kind of file gives the same measures, bad ones an error and nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ncmi
from ncmi.data.saved_outputs import read_outputs
from ncmi.loss.forms import FeatureLength
from ncmi.training.evaluation import measure_file

LOGITS = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(60) % 5


def save_npz(path: Path) -> Path:
    np.savez(path, logits=LOGITS.numpy(), labels=LABELS.numpy())
    return path


def expected() -> tuple[float, float]:
    """CMI and Γ (centroid KL) by the definitions, sample by sample."""
    p = torch.softmax(LOGITS, 1)
    centroids = torch.stack([p[c == LABELS].mean(0) for c in range(5)])

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum(-1)

    cmi = kl(p, centroids[LABELS]).mean()
    gamma = sum(float(kl(centroids[c], p[i])) for i in range(60) for c in range(5) if c != LABELS[i]) / 5 / 60
    return float(cmi), gamma


SAVERS: dict[str, Callable[[Path], Path]] = {
    "a.npz": save_npz,
    "a.safetensors": lambda path: save_file({"logits": LOGITS, "targets": LABELS}, path) or path,
    "a.pt": lambda path: torch.save({"logits": LOGITS, "y": LABELS, "epoch": 3}, path) or path,
}


@pytest.mark.parametrize("name", SAVERS)
def test_measures_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    measured = measure_file(SAVERS[name](tmp_path / name))
    assert (measured.information.cmi, measured.information.separation) == pytest.approx(expected(), rel=1e-10)
    assert measured.values == "logits"


@pytest.mark.parametrize("kind", ["npy", "txt", "csv", "npz", "pt"])
def test_labels_in_a_file_of_their_own(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", LOGITS.numpy())
    labels = tmp_path / f"labels.{kind}"
    if kind == "npy":
        np.save(labels, LABELS.numpy())
    elif kind == "npz":
        np.savez(labels, LABELS.numpy())
    elif kind == "pt":
        torch.save(LABELS, labels)
    else:
        labels.write_text("\n".join(map(str, LABELS.tolist())))
    measured = measure_file(tmp_path / "logits.npy", labels_file=labels)
    assert (measured.information.cmi, measured.information.separation) == pytest.approx(expected(), rel=1e-10)


def test_half_precision_is_read(tmp_path: Path) -> None:
    torch.save({"logits": LOGITS.bfloat16(), "labels": LABELS}, tmp_path / "half.pt")
    _, outputs, _ = read_outputs(tmp_path / "half.pt")
    assert np.array_equal(outputs, LOGITS.bfloat16().float().numpy())


class Hostile:
    """Unpickled in the usual way it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_hostile_file_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"logits": LOGITS, "labels": LABELS, "more": Hostile(marker)}, tmp_path / "hostile.pt")
    np.savez(tmp_path / "hostile.npz", logits=np.array([Hostile(marker)], dtype=object), labels=LABELS.numpy())
    with pytest.raises(ValueError, match=r"hostile\.pt: holds more than tensors, or is damaged; nothing was executed"):
        read_outputs(tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match=r"hostile\.npz: not a readable \.npz"):
        read_outputs(tmp_path / "hostile.npz")
    assert not marker.exists()
    torch.load(tmp_path / "hostile.pt", weights_only=False)  # it is hostile indeed
    assert marker.exists()


@pytest.mark.parametrize("name", SAVERS)
def test_truncated_files(name: str, tmp_path: Path) -> None:
    whole = SAVERS[name](tmp_path / name).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        (tmp_path / name).write_bytes(whole[:size])
        with warnings.catch_warnings(), pytest.raises(ValueError, match="write numpy"):
            warnings.simplefilter("error")
            read_outputs(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))}, "holds the arrays a, b: call the outputs logits"),
        ({"logits": np.zeros((4, 2))}, "or give the labels by --labels FILE"),
        ({"logits": np.zeros((4, 2)), "labels": np.zeros(3, int)}, r"expected \[N, D\] and \[N\]"),
        ({"logits": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "N ≥ 1"),
        ({"logits": np.zeros((4, 2)), "labels": np.zeros(4)}, "expected floats and integers"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_outputs(tmp_path / "a.npz")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist: give a file with outputs and labels"):
        read_outputs(tmp_path / "none.npz")
    (tmp_path / "a.mat").write_text("")
    with pytest.raises(ValueError, match=r"files of type \.mat are not read: write numpy\.savez"):
        read_outputs(tmp_path / "a.mat")


@pytest.mark.parametrize("length", ["own", "common", 2.5])
def test_features_by_the_length_asked_for(length: FeatureLength, tmp_path: Path) -> None:
    features, labels = torch.randn(40, 6), torch.arange(40) % 4
    np.savez(tmp_path / "f.npz", features=features.numpy(), labels=labels.numpy())
    measured = measure_file(tmp_path / "f.npz", temperature=0.3, feature_length=length)
    log_p = ncmi.to_log_distribution(features, None, 0.3, feature_length=length)
    assert measured.information.cmi == pytest.approx(ncmi.measure(log_p, labels, 4).cmi, rel=1e-6)
