"""Options of a simulation, and the sources of its numbers."""

from __future__ import annotations

import pytest

from ncmi.slides.simulation import Difficulty, SimulationOptions, describe_simulation


def test_every_number_has_a_source() -> None:
    for cohort in ("camelyon17", "bracs"):
        stated = describe_simulation(SimulationOptions(cohort))  # type: ignore[arg-type]
        assert len({one.what for one in stated}) == len(stated) > 10
        assert all(one.value and one.source for one in stated)
        assert {one.kind for one in stated} <= {"published", "measured", "derived", "assumption"}
        assert any(one.kind == "published" for one in stated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cohort": "tcga"}, "there are camelyon17 and bracs"),
        ({"feature_dim": 8}, "feature_dim=8: must be at least 24"),
        ({"scale": 0}, "scale=0: must be above 0"),
        ({"scale": 2.0}, "at most 1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tail": 2.0}, "tail=2.0: must be above 2"), ({"mimics": 1.0}, "mimics=1.0"), ({"noise": -1.0}, "noise=-1.0")],
)
def test_wrong_difficulty(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Difficulty(**options)
