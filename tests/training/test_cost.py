"""What losses cost: intervals of medians, peaks to the byte, and the parts of a step, on networks of no size."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import pytest
import torch
from scipy import stats

from ncmi.objectives.options import CrossEntropyOptions, NCMIOptions, SupConOptions
from ncmi.training import cost
from ncmi.training.cost import CostSetting, measure_costs
from ncmi.training.schema import decode_record
from ncmi.training.timing import in_turns, median_interval, peak_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [0, 5, 6, 20, 31, 100])
def test_the_interval_of_a_median_has_its_probability(count: int) -> None:
    interval = median_interval([float(value) for value in range(count, 0, -1)])
    if count < 6:
        assert interval is None
        return
    assert interval is not None
    low, high = interval
    assert high == count + 1 - low

    def outside(rank: float) -> float:
        return 2 * float(stats.binom.cdf(rank - 1, count, 0.5))

    assert outside(low) <= 0.05 < outside(low + 1)


def test_all_take_turns() -> None:
    order: list[str] = []
    times = in_turns({name: (lambda name=name: order.append(name)) for name in "abc"}, 3, CPU)  # type: ignore[misc]
    assert {name: len(spent) for name, spent in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(order) == "abcbcacababc"


def test_the_peak_is_exact_to_the_byte() -> None:
    def make() -> Callable[[], object]:
        kept = torch.zeros(1000)

        def call() -> None:
            large = torch.zeros(3000)
            del large
            torch.zeros(2000).add_(kept[0])

        return call

    assert peak_of(make, CPU) == pytest.approx(4 * (1000 + 3000), abs=64)


def test_costs_of_three_losses() -> None:
    forms = {
        "cross_entropy": ("Cross-entropy", CrossEntropyOptions()),
        "ncmi-fixed": ("NCMI (fixed)", NCMIOptions(centroids="fixed")),
        "supcon": ("SupCon", SupConOptions()),
    }
    setting = CostSetting("resnet_small", classes=4, batch=3, image_size=8, rounds=6)
    record = measure_costs(setting, forms, CPU)
    assert [one.name for one in record.objectives] == list(forms)
    base, fixed, supcon = record.objectives
    assert (base.step_ratio.median, base.peak_ratio) == (1.0, 1.0)
    for one in record.objectives:
        assert 0 < one.head_share.median < 1
        assert one.head_microseconds.low is not None
        assert one.head_microseconds.low <= one.head_microseconds.median <= one.head_microseconds.high  # type: ignore[operator]
        assert one.head_microseconds.median < 1e3 * one.step_milliseconds.median
        assert one.peak_megabytes is not None
    assert fixed.objective["centroids"] == "fixed"
    assert fixed.step_ratio_by_parts is not None
    assert supcon.step_ratio_by_parts is None
    assert supcon.peak_megabytes > base.peak_megabytes  # type: ignore[operator]  # two views of each image
    assert record.feature_dim == 128
    assert decode_record(msgspec.json.encode(record), cost.CostRecord, None) == record  # type: ignore[arg-type]
    assert math.isfinite(record.machine["threads"])
    with pytest.raises(ValueError, match="cross_entropy must be among them"):
        measure_costs(setting, {"supcon": forms["supcon"]}, CPU)


@pytest.mark.parametrize("fields", [{"classes": 1}, {"batch": 0}, {"rounds": 0}])
def test_settings_that_are_none(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        CostSetting(**fields)  # type: ignore[arg-type]
