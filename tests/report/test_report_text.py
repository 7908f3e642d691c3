"""Settings of many runs said once, and names that are the same everywhere."""

from __future__ import annotations

from ncmi.recipes.names import method_label
from ncmi.report.text import environment_settings, section_options, shared_settings


def test_common_values_stand_once_and_others_side_by_side() -> None:
    settings = shared_settings(
        [
            {"a": {"x": 1, "flag": True}, "b": None, "c": [], "d": "one", "e": [1, 2]},
            {"a": {"x": 3, "flag": True}, "b": None, "c": [], "d": "two", "e": [1, 2]},
            {"a": {"x": 2, "flag": True}, "b": None, "c": [], "d": "one", "e": [1, 2]},
        ]
    )
    assert settings == {"a.x": "1–3", "a.flag": "yes", "b": "–", "c": "–", "d": "one | two", "e": "1, 2"}


def test_a_setting_that_some_runs_lack() -> None:
    assert shared_settings([{"a": 1}, {"b": False}]) == {"a": "1 | –", "b": "– | no"}


def test_many_values_are_named_by_their_ends() -> None:
    dates = [{"date": f"2030-01-{day:02}"} for day in range(9, 2, -1)]
    assert shared_settings(dates) == {"date": "7 values, 2030-01-03 … 2030-01-09"}


def test_missing_parts_of_an_environment_are_left_out() -> None:
    assert environment_settings([{"commit": None, "python": "3.11"}]) == {"python": "3.11"}


def test_options_of_a_section() -> None:
    assert section_options([{"name": "ncmi", "temperature": 0.5}]) == "temperature = 0.5"
    assert section_options([{"name": "cross_entropy"}]) == "no options"


def test_readouts_stand_before_what_is_in_brackets() -> None:
    assert method_label("NCMI (released)", "cc") == "NCMI-CC (released)"
    assert method_label("softmax, centered", "lp") == "softmax, centered, LP"
    assert method_label("odd (name", "cc") == "odd (name-CC"


def test_many_numbers_are_named_by_the_least_and_the_most() -> None:
    rates = [5e-3 * 2.0**power for power in (-9, -8, -4, -2, 0, 1)]
    settings = shared_settings([{"rate": rate, "name": f"n{place}"} for place, rate in enumerate(rates)])
    assert settings["rate"] == f"6 values, {rates[0]} … {rates[-1]}"  # as text 9.765625e-06 would come last
    assert settings["name"] == "6 values, n0 … n5"
