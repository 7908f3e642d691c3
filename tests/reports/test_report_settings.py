"""Settings of many runs, told once."""

from __future__ import annotations

from ncmi.reports.settings import environment_settings, shared


def test_common_values_stand_once_and_others_side_by_side() -> None:
    told = shared(
        [
            {"a": {"x": 1, "flag": True}, "b": None, "c": [], "d": "one", "e": [1, 2]},
            {"a": {"x": 3, "flag": True}, "b": None, "c": [], "d": "two", "e": [1, 2]},
            {"a": {"x": 2, "flag": True}, "b": None, "c": [], "d": "one", "e": [1, 2]},
        ]
    )
    assert told == {"a.x": "1–3", "a.flag": "yes", "b": "–", "c": "–", "d": "one | two", "e": "1, 2"}


def test_a_setting_that_some_runs_lack() -> None:
    assert shared([{"a": 1}, {"b": False}]) == {"a": "1 | –", "b": "– | no"}


def test_many_values_are_told_by_their_ends() -> None:
    dates = [{"date": f"2030-01-{day:02}"} for day in range(9, 2, -1)]
    assert shared(dates) == {"date": "7 values, 2030-01-03 … 2030-01-09"}


def test_unknown_environment_is_left_out() -> None:
    assert environment_settings([{"commit": None, "python": "3.11"}]) == {"python": "3.11"}
