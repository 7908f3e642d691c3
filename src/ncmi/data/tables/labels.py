"""Which column of a table is the label, and why; and labels as they are written, as classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.columns import (
    DOUBTFUL_LABEL_COLUMNS,
    LABEL_COLUMNS,
    TABLE_LABEL_COLUMNS,
    TABLE_LABEL_WORDS,
    called_like,
)
from ncmi.data.tables.columns import Profile, column_named, says_parts
from ncmi.data.tables.dialect import MISSING_MARKS, is_number
from ncmi.errors import listing

if TYPE_CHECKING:
    import pandas as pd

_OPTION = "--data.label-column"
_NUMBERED = re.compile(r"(v|x|f|c|a|col|column|attr|attribute|feature|feat|var)?[_ .]?\d+", re.IGNORECASE)
_MISSING_LABELS = set(MISSING_MARKS) - {"None", "none", "-", "--", "."}


@dataclass(frozen=True)
class LabelChoice:
    """The column of the label.

    Attributes:
        name: of the column.
        reason: why it is that one, for a line that is printed.
        others: what else it could have been.
    """

    name: str
    reason: str
    others: tuple[str, ...] = ()


def _rows_a_class(profile: Profile) -> float:
    return profile.present / max(profile.distinct, 1)


def _could_be_classes(profile: Profile, named: bool = False) -> bool:
    """Whether few values occur, most of them often; numbers are whole and few, or text."""
    if profile.kind == "date" or profile.distinct < 2 or profile.values is None:
        return False
    if profile.kind == "fraction":
        return False
    if profile.kind == "whole" and profile.distinct > 30:
        return False
    alone = int((profile.counts == 1).sum())
    often = _rows_a_class(profile) >= 2 if named else _rows_a_class(profile) >= 4
    return often and alone <= 0.05 * profile.present + 1


def _is_text(profile: Profile) -> bool:
    return profile.kind == "text"


def _few_from_start(profile: Profile) -> bool:
    """Whole numbers that count up from 0 or 1, ten at most: as classes are numbered."""
    if profile.kind != "whole" or profile.values is None or profile.distinct > 10:
        return False
    numbers = sorted(profile.values)
    return numbers[0] in (0, 1) and numbers == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))


def choose_label(
    profiles: Mapping[str, Profile],
    *,
    has_header: bool,
    asked: str | None = None,
    last_is_class: bool = False,
) -> LabelChoice:
    """The column of the label: the one asked for; else by name, place and content.

    Args:
        profiles: of all columns that could be it, in their order.
        has_header: whether the names of the columns stood in the file.
        asked: its name or number.
        last_is_class: whether the form of the file says that the last column is the class.

    Raises:
        ValueError: for a column that is not there, one of measured numbers, and where several or none could be it.
    """
    names = list(profiles)
    if asked is not None:
        name = column_named(asked, names, _OPTION)
        _check_classes(name, profiles[name])
        return LabelChoice(name, f"{_OPTION} names it")
    if has_header:
        return _by_name(profiles, last_is_class)
    return _by_place(profiles)


def _check_classes(name: str, profile: Profile) -> None:
    """Raise ValueError for a column of measured numbers."""
    rows = _rows_a_class(profile)
    if profile.kind == "date":
        raise ValueError(f"label {name!r} holds dates, not classes: choose another column with {_OPTION}")
    many = profile.values is None or profile.distinct > 20 or profile.distinct > 0.5 * profile.present
    if profile.kind == "fraction" and many:
        raise ValueError(
            f"label {name!r} holds {'many' if profile.values is None else profile.distinct} different numbers, so "
            f"it is a target of regression, not of classes: choose another column with {_OPTION}, or bin it first"
        )
    if profile.present and (profile.values is None or profile.distinct > 20) and profile.kind == "whole" and rows < 5:
        raise ValueError(
            f"label {name!r} holds {profile.distinct} different numbers in {profile.present} rows, so it is a target "
            f"of regression or an id, not of classes: choose another column with {_OPTION}, or bin it first"
        )
    if profile.kind == "text" and profile.present > 20 and rows < 1.5:
        raise ValueError(
            f"label {name!r} differs in nearly every row ({profile.distinct} values in {profile.present} rows), like a "
            f"name or an id: choose another column with {_OPTION}"
        )


def _holds_classes(name: str, profile: Profile) -> bool:
    try:
        _check_classes(name, profile)
    except ValueError:
        return False
    return True


def _is_beyond_doubt(name: str, profiles: Mapping[str, Profile]) -> bool:
    """Whether a column that may as well be a feature is the label all the same.

    It has two values, and stands at the edge or is the only one with two; or it stands at the edge as the only one of
    words.
    """
    several = [other for other, profile in profiles.items() if profile.distinct < profile.rows]
    if profiles[name].distinct == 2:
        return name in several[:1] + several[-1:] or sum(profiles[other].distinct == 2 for other in several) == 1
    words = [other for other in several if _is_text(profiles[other]) and _could_be_classes(profiles[other])]
    return name in several[:1] + several[-1:] and words in ([], [name])


def _nothing_like_a_label(profiles: Mapping[str, Profile], why: str) -> ValueError:
    names = list(profiles)
    likely = [name for name in names if _could_be_classes(profiles[name])]
    hint = f"few values have {listing(likely, 8)}; " if likely else ""
    return ValueError(f"{why}: choose the label with {_OPTION}; {hint}there is {listing(names)}")


def _by_name(profiles: Mapping[str, Profile], last_is_class: bool) -> LabelChoice:
    names = list(profiles)
    last = names[-1]
    names = [name for name in names if not says_parts(profiles[name])]
    strict = called_like(names, LABEL_COLUMNS)
    usual = [name for name in called_like(names, TABLE_LABEL_COLUMNS) if name not in strict]
    doubtful = called_like(names, DOUBTFUL_LABEL_COLUMNS)
    usual += [name for name in doubtful if _is_beyond_doubt(name, profiles)]
    alike = [name for name in names if name not in (*strict, *usual) and TABLE_LABEL_WORDS.search(name)]
    alike = [name for name in alike if profiles[name].distinct == 2 or name in (names[0], last)]
    if not strict and not usual and alike:
        alike += [name for name in doubtful if name not in alike]
    # few rows are enough for a column that is called label
    classes = [name for name in strict if _holds_classes(name, profiles[name])]
    classes += [name for name in names if name not in strict and _could_be_classes(profiles[name], named=True)]
    fitting = [[name for name in group if name in classes] for group in (strict, usual, alike)]
    candidates = [name for group in fitting for name in group]
    if last_is_class and _could_be_classes(profiles[last], named=True):
        others = tuple(name for name in candidates if name != last)
        if last in candidates or not others:
            return LabelChoice(last, "the last column of an ARFF file is its class", others)
        if not fitting[0]:
            candidates = [*others, last]
            raise ValueError(f"several columns could be the label ({listing(candidates)}): choose one with {_OPTION}")
    if not candidates:
        if strict:
            _check_classes(strict[0], profiles[strict[0]])
        if len(strict) == 1 and profiles[strict[0]].distinct >= 1:
            return LabelChoice(strict[0], f"it is called {strict[0]!r}")
        return _by_content(profiles)
    if len(candidates) == 1:
        return LabelChoice(candidates[0], f"it is called {candidates[0]!r}", _others(profiles, candidates[0]))
    if len(fitting[0]) + len(fitting[1]) == 1:
        rest = tuple(candidates[1:])
        return LabelChoice(candidates[0], f"it is called {candidates[0]!r}", rest)
    # several: the last of them, or the first, where it stands at the edge and the others do not
    at_edge = [name for name in candidates if name in (names[0], last)]
    strongest = next(group for group in fitting if group)
    if len(strongest) == 1 and at_edge == strongest:
        return LabelChoice(
            strongest[0],
            f"it is called {strongest[0]!r}, at the edge",
            tuple(n for n in candidates if n != strongest[0]),
        )
    raise ValueError(f"several columns could be the label ({listing(candidates)}): choose one with {_OPTION}")


def _others(profiles: Mapping[str, Profile], name: str) -> tuple[str, ...]:
    return tuple(
        other
        for other, profile in profiles.items()
        if other != name and _could_be_classes(profile) and not says_parts(profile)
    )


def _by_content(profiles: Mapping[str, Profile]) -> LabelChoice:
    """Of columns that no name tells: by place where names are numbered; else a last one that alone has two values."""
    names = list(profiles)
    last = names[-1]
    if sum(_NUMBERED.fullmatch(name) is not None for name in names) > 0.6 * len(names) and _NUMBERED.fullmatch(last):
        return _by_place(profiles)
    likely = [name for name in names if _could_be_classes(profiles[name])]
    if likely == [last] and profiles[last].distinct == 2:
        return LabelChoice(last, "it is the last column, and the only one with few values")
    raise _nothing_like_a_label(profiles, "no column is called like a label")


def _by_place(profiles: Mapping[str, Profile]) -> LabelChoice:
    """Without names: the first or last column, by which of them is like classes and unlike the other columns."""
    names = list(profiles)
    edges = [names[-1], names[0]]
    scores = {name: _edge_score(name, profiles) for name in edges if _could_be_classes(profiles[name])}
    where = {names[0]: "first", names[-1]: "last"}
    if not scores:
        raise _nothing_like_a_label(profiles, "nothing names the columns, and neither first nor last is like a label")
    best, *rest = sorted(scores, key=lambda name: -scores[name])
    if not rest and best == names[0] and not (_is_text(profiles[best]) or _few_from_start(profiles[best])):
        raise _nothing_like_a_label(profiles, "nothing names the columns, and the last is not like a label")
    if (
        not rest
        and best == names[0]
        and profiles[names[-1]].kind == "whole"
        and profiles[names[-1]].distinct <= 100
        and _is_text(profiles[best])
    ):
        rest = [names[-1]]
        scores[names[-1]] = scores[best]
    if rest and scores[best] - scores[rest[0]] < 2:
        raise ValueError(
            "nothing names the columns, and the label could be the first as well as the last: choose with "
            f"{_OPTION} {names[0]} or {names[-1]}"
        )
    if profiles[best].distinct > 10 and _rows_a_class(profiles[best]) < 10:
        raise _nothing_like_a_label(profiles, f"nothing names the columns, and the {where[best]} has many values")
    inside = [name for name in names[1:-1] if _is_text(profiles[name]) and _could_be_classes(profiles[name])]
    if inside and not _is_text(profiles[best]) and not _few_from_start(profiles[best]):
        raise ValueError(
            f"nothing names the columns, and the label could be the {where[best]} as well as {listing(inside, 4)}: "
            f"choose with {_OPTION}"
        )
    others = tuple(name for name in _others(profiles, best))
    return LabelChoice(best, f"it is the {where[best]} column and has few values; no name says more", others)


def _edge_score(name: str, profiles: Mapping[str, Profile]) -> int:
    names = list(profiles)
    profile = profiles[name]
    others = [profiles[other] for other in names if other != name]
    values = set(map(str, profile.values or ()))
    vocabularies = [set(map(str, other.values or ())) for other in others if other.kind == profile.kind]
    score = 0
    if _is_text(profile):
        score += 1 if vocabularies else 2
        alike = any(len(values & words) >= 0.5 * len(values) for words in vocabularies)
        # the only one of its own words among columns of the same, such as yes and no
        same = sum(words == vocabularies[0] for words in vocabularies) if vocabularies else 0
        score += 0 if alike else 3 if same >= 0.8 * len(vocabularies) and same > 1 else 1
    else:
        fractions = sum(other.kind == "fraction" for other in others)
        score += 2 * (fractions > 0.5 * len(others)) if name == names[-1] else 0
        score += _few_from_start(profile) and values not in vocabularies
    return score + (name == names[-1])


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels as classes.

    Attributes:
        indices: ``[N]`` int64, -1 where there is no label.
        class_names: in order of value where all are numbers, else of code points.
        notes: of names that may mean one class.
    """

    indices: Tensor
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def label_texts(column: pd.Series[Any], missing: Sequence[str] = ()) -> list[str | None]:
    """Labels as they are written, None where there is none; whole numbers that all stand as 1.0 as 1."""
    import pandas as pd

    codes, uniques = pd.factorize(column)
    marks = {*_MISSING_LABELS, *missing}
    texts = [None if str(text).strip() in marks else str(text).strip() for text in uniques]
    present = [text for text in texts if text is not None]
    if present and all(re.fullmatch(r"[-+]?\d+\.0*", text) for text in present):
        texts = [text and text.split(".")[0] for text in texts]
    texts.append(None)
    return [texts[code] for code in codes.tolist()]


def plain_whole(text: str) -> str | None:
    """A whole number without zeros behind a point, which frames write where values are missing; None for other texts.

    >>> plain_whole("1.0"), plain_whole("1"), plain_whole("01"), plain_whole("1.10")
    ('1', '1', None, None)
    """
    match = re.fullmatch(r"(-?(?:0|[1-9]\d*))(?:\.0*)?", text)
    return match and match[1]


def order_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes in order of value where all are numbers, else of code points.

    >>> order_classes(["10", "9", "01"]), order_classes(["b", "10", "a"])
    (('01', '9', '10'), ('10', 'a', 'b'))
    """
    if all(is_number(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def encode_texts(texts: Sequence[str | None], class_names: Sequence[str] | None = None) -> Labels:
    """Texts as classes: those that occur, or given ones, of which a trailing dot is no part (as in UCI's adult.test).

    Raises:
        ValueError: for fewer than two classes, and for a text that is none of the given classes.
    """
    import pandas as pd

    codes, uniques = pd.factorize(pd.Series(list(texts), dtype="str"))
    values = [str(text) for text in uniques]
    notes = []
    if class_names is None:
        names = order_classes(values)
        if len(names) < 2:
            raise ValueError(f"only one class ({listing(names)}): a classifier needs samples of at least two")
        alike: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(name.casefold().rstrip(".").strip(), []).append(name)
        notes += [f"the classes {listing(group)} may be meant as one" for group in alike.values() if len(group) > 1]
        numbers: dict[float, list[str]] = {}
        for name in names:
            if is_number(name):
                numbers.setdefault(float(name), []).append(name)
        notes += [f"{listing(group)} are different classes" for group in numbers.values() if len(group) > 1]
    else:
        names = tuple(class_names)
        matched = as_classes(values, names)
        notes += [f"class {old!r} is taken as {new!r}" for old, new in zip(values, matched, strict=True) if new != old]
        values = [str(value) for value in matched]
        if other := [value for value in values if value not in names]:
            raise ValueError(
                f"classes that are not among those of training: {listing(other)}; there is {listing(names)}: correct "
                "or remove these rows"
            )
    place = {name: i for i, name in enumerate(names)}
    table: npt.NDArray[np.int64] = np.array([*(place[value] for value in values), -1], np.int64)
    return Labels(torch.from_numpy(table[codes]), tuple(names), tuple(notes))


def as_classes(texts: Sequence[str | None], class_names: Sequence[str]) -> list[str | None]:
    """Texts with the names of given classes where they differ by a dot at the end, or as 1.0 and 1 do.

    All others are as they are.

    >>> as_classes(["<=50K.", "1.0", "x", None], ["<=50K", "1"])
    ['<=50K', '1', 'x', None]
    """
    names = set(class_names)
    dotless = {name.rstrip("."): name for name in class_names}
    by_value = {float(name): name for name in class_names if is_number(name)}
    whole = {plain: name for name in class_names if (plain := plain_whole(name)) is not None}
    known: dict[str | None, str | None] = {None: None}
    for text in set(texts) - {None}:
        assert text is not None
        if text in names:
            known[text] = text
        elif text.rstrip(".") in dotless:
            known[text] = dotless[text.rstrip(".")]
        elif (plain := plain_whole(text)) is not None and plain in whole:
            known[text] = whole[plain]
        elif is_number(text) and re.search(r"\.0*$", text):
            known[text] = by_value.get(float(text), text)
        else:
            known[text] = text
    return [known[text] for text in texts]


def give_aways(frame: pd.DataFrame, profiles: Mapping[str, Profile], labels: Tensor, names: Sequence[str]) -> list[str]:
    """Columns of few values, each of which occurs with one class only: they repeat the label."""
    import pandas as pd

    classes = labels.numpy()
    number = int(classes.max()) + 1
    result = []
    for name in names:
        profile = profiles[name]
        if profile.values is None or not 2 <= profile.distinct <= 1000 or _rows_a_class(profile) < 4:
            continue
        codes, _ = pd.factorize(frame[name])
        there = codes >= 0
        if there.sum() < 0.5 * len(codes):
            continue
        pairs = codes[there].astype(np.int64) * number + classes[there]
        size = number * (int(codes.max()) + 1)
        # by counts where these are few, as they mostly are
        together = np.flatnonzero(np.bincount(pairs, minlength=size)) if size <= 10_000_000 else np.unique(pairs)
        if len(together) == len(np.unique(together // number)) and len(np.unique(together % number)) > 1:
            result.append(name)
    return result
