"""Options as they are typed: their choices, the nearest to a misspelt one, and errors that name them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

Options = dict[str, tuple[str, ...]]
"""The choices of each option (none where anything goes) by its name, such as ``--training.optimizer``."""
_NAME = re.compile(
    r"[\w.]+\((?:[^()]|\([^()]*\))*\)|"  # a call is code, and stays
    r"(?<![\w./'\"<-])([a-z][a-z0-9]*(?:_[a-z0-9]+)*)(?:=(\([^)]*\)|'[^']*'|[^\s,:;)]+))?(?![\w./(])"
)
_ERROR = re.compile(r"Error parsing (?P<where>\S+): (?P<what>.*)")
_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*?)' for argument '(?P<option>\S+)'\. Expected one of \((?P<known>.*)\)"
)
_FRAME = "│╭╮╰╯|+"


def options_of(verb: Callable[..., Any], choices: Mapping[str, Sequence[str]]) -> Options:
    """The options of a verb and of the sections of the recipe among its parameters.

    Args:
        verb: whose parameters are options, or dataclasses of options.
        choices: names that options of type text know.
    """
    options: Options = {"--help": ()}
    for name, kind in get_type_hints(verb).items():
        if name != "return":
            _add(options, name, kind)
    return options | {option: tuple(names) for option, names in choices.items() if option in options}


def _add(options: Options, name: str, kind: Any) -> None:
    if is_dataclass(kind) and isinstance(kind, type):
        types = get_type_hints(kind)
        for field in fields(kind):
            _add(options, f"{name}.{field.name}", types[field.name])
    else:
        options[_hyphens(f"--{name}")] = _choices(kind)


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(choice for inner in get_args(kind) if inner is not kind for choice in _choices(inner))


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


def as_spelled(value: str, choices: Iterable[str]) -> str:
    """The choice that is meant by a value, whether it is typed with hyphens or underscores; else the value as it is.

    >>> as_spelled("cross-entropy", ["ncmi", "cross_entropy"])
    'cross_entropy'
    """
    known = {_hyphens(choice): choice for choice in choices}
    return value if value in known.values() else known.get(_hyphens(value), value)


def spell(words: Sequence[str], options: Options) -> list[str]:
    """The words of a command line with every choice spelled as the program has it."""
    spelled, choices = [], tuple[str, ...]()
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            choices = options.get(_hyphens(name), ())
            spelled.append(name + equals + as_spelled(value, choices))
        else:
            spelled.append(as_spelled(word, choices))
    return spelled


def nearest(word: str, known: Iterable[str]) -> str:
    """``": did you mean …?"`` for a misspelt word; nothing where none is near."""
    known = list(known)
    word = _hyphens(word)
    last = word.lstrip("-").rpartition(".")[2]
    # a name without its section is the usual slip
    same = [name for name in known if name.lstrip("-").rpartition(".")[2] == last]
    near = same or get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        leaves = {name.rpartition(".")[2]: name for name in known}
        near = [leaves[leaf] for leaf in get_close_matches(last, leaves, n=1, cutoff=0.7)]
    return f": did you mean {' or '.join(near[:3])}?" if near else ""


def as_typed(message: str, options: Options, section: str = "") -> str:
    """A message in which the options of the recipe stand as they are typed.

    >>> as_typed("learning_rate=-1: must be above 0", {"--training.learning-rate": ()})
    '--training.learning-rate -1: must be above 0'
    """
    typed: dict[str, str] = {}
    order = sorted(options, key=lambda name: (not name.startswith(f"--{section}."), name.count(".")))
    for option in order:
        if "." in option:
            typed.setdefault(option.rpartition(".")[2].replace("-", "_"), option)
    for option in options:
        if "." not in option:  # of the verb itself
            typed.setdefault(option.lstrip("-").replace("-", "_"), option)

    def replace(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        # a plain word is an option where it is a name in code
        if name is None or name not in typed or (value is None and "_" not in name):
            return match[0]
        if value is None or value == "True":
            return typed[name]
        return f"{typed[name]} {' '.join(value.strip('()').replace(',', ' ').split())}".replace("'", "")

    return _NAME.sub(replace, message)


def parse_error(said: str, words: Sequence[str], options: Options, prog: str) -> str:
    """What was wrong with a command line, in one line, from what the parser says in a box of many.

    Args:
        said: by the parser.
        words: of the command line, without the verb.
        options: of the verb.
        prog: the program and its verb.
    """
    see = f"see {prog} --help"
    lines = [line.strip().strip(_FRAME).strip() for line in said.splitlines()]
    body = " ".join(line for line in lines[1:] if line.strip("─-"))
    body = body.partition("For full helptext")[0].partition("Argument helptext")[0].strip()
    if match := _CHOICE.search(body):
        known = [name.strip(" '\"") for name in match["known"].split(",") if name.strip()]
        near = nearest(match["value"], known)
        return f"{match['option']} {match['value']}: choose one of {', '.join(known)}{near and f' ({near[2:]})'}"
    if match := _ERROR.search(body):
        return _value_error(match["where"], match["what"], options)
    if "Unrecognized" in said:
        unknown = [word for word in words if word.startswith("--") and not _is_known(word, options)]
        if unknown:
            name = unknown[0].partition("=")[0]
            return f"unknown option {name}{nearest(name, options) or f': {see}'}"
        extra = body.partition(":")[2].partition("Perhaps")[0].partition("Available")[0].strip()
        return f"{extra!r} is more than {prog} takes: {see}"
    if "Missing from" in body:
        missing = body.partition("Missing from ")[2].partition(":")[2].replace("(required)", "").strip()
        return f"something is missing: {missing} ({see})"
    return f"{body}: {see}"


def _is_known(word: str, options: Options) -> bool:
    name = _hyphens(word.partition("=")[0])
    return name in options or name.replace("no-", "", 1) in options or name.replace(".no-", ".", 1) in options


def _value_error(where: str, what: str, options: Options) -> str:
    where = where.rstrip(":")
    if match := re.match(r"invalid literal for int\(\) with base 10: (.*)", what):
        return f"{where}: {match[1]} is no whole number"
    if match := re.match(r"could not convert string to float: (.*)", what):
        return f"{where}: {match[1]} is no number"
    return as_typed(what if not where.startswith("--") else f"{where}: {what}", options, where)
