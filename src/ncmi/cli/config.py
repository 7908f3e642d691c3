"""``--config FILE``: a recipe from a file of the user's own, or that of an earlier run."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ncmi.cli.options import nearest
from ncmi.data.kinds import kind_of
from ncmi.objectives.options import objective_options
from ncmi.recipes import Recipe, recipe_from_dict, recipe_to_dict

_SECTIONS = ("data", "network", "objective", "training")
_MOST = 10_000_000  # bytes: no recipe is as long
Base = Callable[[str, str | None], Recipe]
"""The recipe that stands behind a file, by kind of data and name of the objective."""


def read_config(path: Path, base: Base, *, name: str | None, kind: str, objective: str | None) -> Recipe:
    """A recipe from a file; what it leaves open is as in ``base``.

    Args:
        path: recipe.json of a run, or TOML or YAML with the sections data, network, objective and training.
        base: the recipe behind it.
        name: the data that the command line names; by default the file's.
        kind: of that data.
        objective: the objective that the command line names; by default the file's.

    Raises:
        OSError, ValueError: naming the file; for what is no recipe, an unknown section or field, or a wrong value.
    """
    content = _content(path)
    try:
        return _recipe(content, base, name, kind, objective)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _recipe(content: dict[str, Any], base: Base, name: str | None, kind: str, objective: str | None) -> Recipe:
    if unknown := sorted(set(content) - {*_SECTIONS, "format"}):
        near = nearest(unknown[0], _SECTIONS)
        raise ValueError(f"unknown section {unknown[0]!r}{near}: sections are {', '.join(_SECTIONS)}")
    sections = {section: content.get(section, {}) for section in _SECTIONS}
    for section, values in sections.items():
        if not isinstance(values, dict):
            raise ValueError(f"{section} is no section of options: write its options below it")
    data = sections["data"]
    if name is None:
        name = data.get("name")
        if not isinstance(name, str):
            raise ValueError("names no data: give it behind the verb, or as name in the section data")
        kind = data.get("kind") or kind_of(name, data.get("data_dir"))
    elif data.get("kind", kind) != kind:
        raise ValueError(f"its data is of kind {data['kind']!r}, and {name} of kind {kind!r}: use another file")
    chosen = objective or sections["objective"].get("name")
    if chosen is not None:
        try:
            objective_options(str(chosen))
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
    behind = recipe_to_dict(base(kind, chosen))
    if objective is not None and sections["objective"].get("name") not in (None, objective):
        sections["objective"] = {}  # options of another one
    for section, values in sections.items():
        if unknown := sorted(set(values) - behind[section].keys()):
            raise ValueError(f"section {section}: unknown option {unknown[0]!r}{nearest(unknown[0], behind[section])}")
        behind[section] = _laid_over(behind[section], values)
    behind["data"]["name"] = name
    if objective is not None:
        behind["objective"]["name"] = objective
    if "format" in content:
        behind["format"] = content["format"]
    return recipe_from_dict(behind)


def _laid_over(behind: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(behind)
    for name, value in values.items():
        nested = isinstance(value, dict) and isinstance(behind.get(name), dict)
        merged[name] = _laid_over(behind[name], value) if nested else value
    return merged


def _content(path: Path) -> dict[str, Any]:
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise ValueError(f"{path}: no file: --config takes a recipe.json, or a .toml or .yaml file")
    if status.st_size > _MOST:
        raise ValueError(f"{path}: {status.st_size:,} bytes is more than a recipe takes: give another file")
    suffix = path.suffix.lower()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if suffix == ".toml":
            content: Any = tomllib.loads(text)
        elif suffix in (".yaml", ".yml"):
            content = _from_yaml(text)
        elif suffix == ".json":
            content = json.loads(text)
        else:
            raise ValueError("give a .json, .toml or .yaml file")
    except RecursionError:
        raise ValueError(f"{path}: nested too deep to be a recipe") from None
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no sections: write data, network, objective, training")
    return content


def _from_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
