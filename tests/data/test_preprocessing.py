"""From columns to features: against scikit-learn's own ColumnTransformer, through JSON, and on data that is unlike."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from ncmi.data.tables import preprocessing
from ncmi.data.tables.preprocessing import Preprocessing, fit_preprocessing
from ncmi.data.tables.table import TableColumn

NUMBER, CATEGORY = (TableColumn(name="x", kind="number"),), (TableColumn(name="c", kind="category"),)


def words(values: list[str | None]) -> pd.Series[Any]:
    return pd.Series(values, dtype="str")


def kept(fitted: Preprocessing) -> Preprocessing:
    """As a run folder gives it back."""
    return msgspec.json.decode(msgspec.json.encode(fitted), type=Preprocessing)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 60))
def test_features_are_those_of_scikit_learn(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": np.where(random.random(rows) < 0.3, np.nan, random.normal(size=rows)),
            "b": random.normal(size=rows),
            "c": words([None if random.random() < 0.2 else str(v) for v in random.choice(list("uvw"), rows)]),
        }
    )
    train, columns = (
        frame.iloc[: rows * 2 // 3],
        (*(TableColumn(name=n, kind="number") for n in "ab"), TableColumn(name="c", kind="category")),
    )
    fitted = kept(fit_preprocessing(train, columns, rows))
    often = train["c"].astype(object).where(train["c"].notna(), "(missing)").value_counts()
    oracle = ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median", add_indicator=True), ["a", "b"]),
            ("words", OneHotEncoder(min_frequency=3, handle_unknown="infrequent_if_exist", sparse_output=False), ["c"]),
        ]
    )
    as_objects = frame.assign(c=frame["c"].astype(object).where(frame["c"].notna(), "(missing)"))
    oracle.fit(as_objects.iloc[: len(train)])
    oracle.named_transformers_["numbers"].indicator_.set_params(error_on_new=False)
    expected = oracle.transform(as_objects)
    if (often < 3).any() and (often >= 3).any():
        expected = expected[:, :-1]  # its column of the rare ones: there all of ours are 0
    ours = fitted.transform(frame).numpy()
    assert ours.shape[1] == len(fitted.feature_names) == len(fitted.is_flag)
    if (often >= 3).any():
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_values_that_training_had_not_share_one_place() -> None:
    train = pd.DataFrame({"c": words(["a"] * 5 + ["b"] * 5 + ["rare"])})
    fitted = kept(fit_preprocessing(train, CATEGORY, 11))
    assert fitted.feature_names == ("c=a", "c=b")
    new = pd.DataFrame({"c": words(["b", "rare", "new", None])})
    assert fitted.transform(new).tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]
    assert fitted.unseen(new) == {"c": 2}
    assert fitted.unseen(train.iloc[:10]) == {}


def test_missing_numbers_are_the_median_and_are_told() -> None:
    fitted = kept(fit_preprocessing(pd.DataFrame({"x": [1.0, 2.0, 9.0, np.nan]}), NUMBER, 4))
    assert fitted.feature_names == ("x", "x missing")
    assert fitted.transform(pd.DataFrame({"x": [np.nan, 5.0]})).tolist() == [[2, 1], [5, 0]]
    # where training lacked nothing, there is nothing to learn of what is missing
    whole = kept(fit_preprocessing(pd.DataFrame({"x": [1.0, 2.0, 9.0]}), NUMBER, 3))
    assert whole.transform(pd.DataFrame({"x": [np.nan]})).tolist() == [[2]]


def test_dates_become_the_parts_that_differ() -> None:
    dates = pd.to_datetime(["2020-01-01", "2021-05-01", None, "2020-01-03"])
    columns = (TableColumn(name="d", kind="date"),)
    fitted = kept(fit_preprocessing(pd.DataFrame({"d": dates}), columns, 4))
    assert fitted.feature_names == ("d year", "d month", "d day", "d day_of_week", "d year missing")
    assert fitted.transform(pd.DataFrame({"d": dates})).tolist()[1:3] == [[2021, 5, 1, 5, 0], [2020, 1, 1, 4, 1]]
    empty = pd.DataFrame({"d": pd.to_datetime([None, None])})
    assert fitted.transform(empty).isfinite().all()


def test_a_column_of_one_value_is_named_and_left_out() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "same": [4.0] * 3, "none": [np.nan] * 3, "word": words(["a"] * 3)})
    columns = tuple(TableColumn(name=name, kind="category" if name == "word" else "number") for name in frame)
    fitted = fit_preprocessing(frame, columns, 3)
    assert (fitted.feature_names, fitted.constant) == (("x",), ("same", "none", "word"))
    with pytest.raises(ValueError, match="no feature differs"):
        fit_preprocessing(frame[["same"]], (TableColumn(name="same", kind="number"),), 3)


def test_very_many_categories_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"c": words([f"v{i % 8}" for i in range(40)]), "few": words(["a", "b"] * 20)})
    columns = (TableColumn(name="c", kind="category"), TableColumn(name="few", kind="category"))
    monkeypatch.setattr(preprocessing, "_MOST_BYTES", 4 * 40 * 6)  # six features of 40 rows
    fitted = kept(fit_preprocessing(frame, columns, 40))
    assert fitted.feature_names == ("few=a", "few=b", "c")
    assert fitted.is_flag == (True, True, False)
    new = pd.DataFrame({"c": words(["v3", "other"]), "few": words(["a", "b"])})
    assert fitted.transform(new).tolist() == [[1, 0, 3], [0, 1, -1]]


def test_numbers_beyond_single_precision_are_infinite_and_not_silent() -> None:
    fitted = fit_preprocessing(pd.DataFrame({"x": [1.0, 2.0]}), NUMBER, 2)
    assert torch.isinf(fitted.transform(pd.DataFrame({"x": [1e300]}))).all()


def test_numbers_that_single_precision_cannot_tell_apart_are_shifted() -> None:
    seconds = 1_700_000_000.0 + np.arange(100)
    fitted = kept(fit_preprocessing(pd.DataFrame({"x": [*seconds, np.nan]}), NUMBER, 101))
    features = fitted.transform(pd.DataFrame({"x": [*seconds, np.nan]}))[:, 0]
    assert (features[:-1].double() - features[0]).tolist() == (seconds - seconds[0]).tolist()
    assert features[-1] == features[:-1].median() + 0.5
    raw = fitted.numbers_and_flags(pd.DataFrame({"x": seconds}))
    assert (raw.dtype, raw[:, 0].tolist()) == (torch.float64, seconds.tolist())
    for plain in ([1.0, 2.0, 9.0], [5e9, 5e9, np.nan], [2001.5, 2002.5, 2003.5]):
        fitted = fit_preprocessing(pd.DataFrame({"x": plain}), NUMBER, 3)
        assert not fitted.is_shifted
        assert fitted.numbers_and_flags(pd.DataFrame({"x": plain})).dtype == torch.float32


def test_columns_called_like_features_of_others_keep_their_values() -> None:
    frame = pd.DataFrame(
        {
            "d": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01", "2024-01-01"]),
            "d year": [1.0, np.nan, 3.0, 5.0],
            "d year missing": [7.0, 8.0, 9.0, 6.0],
        }
    )
    columns = (
        TableColumn(name="d", kind="date"),
        TableColumn(name="d year", kind="number"),
        TableColumn(name="d year missing", kind="number"),
    )
    fitted = kept(fit_preprocessing(frame, columns, 4))
    features = dict(zip(fitted.feature_names, fitted.transform(frame).T.tolist(), strict=True))
    assert len(features) == len(fitted.feature_names)
    assert features["d year"] == [2020, 2021, 2022, 2024]
    assert [1, 3, 3, 5] in features.values()
    assert features["d year missing"] == [7, 8, 9, 6]
    assert [0, 1, 0, 0] in features.values()
