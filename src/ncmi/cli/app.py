"""Parsing: typed options from the recipe's dataclasses. Which they are follows from the data that is named."""

import contextlib
import inspect
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

import ncmi
from ncmi.cli import data, output, slides, verbs
from ncmi.cli.config import read_config
from ncmi.cli.options import Options, as_spelled, as_typed, nearest, options_of, parse_error, spell
from ncmi.data.kinds import EMBEDDED, kind_of
from ncmi.objectives.options import ObjectiveOptions, objective_names, objective_options
from ncmi.recipes import DATA, Kind, Recipe, default_training, named_recipe, recipe_names
from ncmi.recipes.names import NETWORKS
from ncmi.training.launch import check_verb
from ncmi.training.reproduction import VARIANTS

_SHELLS = ("bash", "zsh", "fish", "tcsh")
_DESCRIPTION = f"""ncmi {ncmi.__version__}: train and judge classifiers by normalized conditional mutual information.

DATA is a name (digits, wine, breast_cancer, iris, cifar10, cifar100), a table, a folder of images, or features of
slides; `ncmi train DATA --help` shows the options of its kind.
Objectives (--objective NAME; its options are --objective.*): {", ".join(objective_names())}.
Recipes (--recipe NAME sets defaults of train, compare and sweep; ncmi recipes tells them): {", ".join(recipe_names())}.
Start with: ncmi compare digits
Completion: ncmi --print-completion bash (or {", ".join(_SHELLS[1:])}) prints what the shell is to read."""
_SLIDES = """From a folder of slides to features of their patches, a look at a cohort, and simulated cohorts.

Then, as for other data: ncmi train FEATURES --data.labels labels.csv, compare, evaluate, predict, report."""
_DATA = """Large folders of images, such as ImageNet, made into shards that are read many times as fast.

Then, as for other data: ncmi train SHARDS, compare, evaluate, predict, report."""
_GROUPS = {"slides": (slides.VERBS, _SLIDES), "data": (data.VERBS, _DATA)}
"""Verbs that stand behind a word, and what is said of them."""

_CONFIG = (tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff)
_MODELED = ("compare", "train", "sweep")
_LONG = (*_MODELED, "resume", "evaluate", "predict", "report", "reproduce", "bench")
# options that decide how the others are typed are taken out first, and shown in the help of their verbs
_TAKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "--objective": (_MODELED, "the loss; its options are --objective.*"),
    "--recipe": (_MODELED, "a named recipe, which sets the defaults (ncmi recipes tells them)"),
    "--config": (_MODELED, "file that sets the defaults: recipe.json of a run, or TOML or YAML with its sections"),
    "--imports": (_LONG, "module that registers objectives or networks of your own; may be given several times"),
    "--dry-run": ((*_MODELED, "reproduce"), "say what would be done, and do nothing"),
    "--quiet": (_LONG, "print errors and the last lines only"),
}
_FLAGS = ("--dry-run", "--quiet")
TYPED: Options = {}
"""The options of the present verb, for errors that come up while it runs."""


@dataclass(frozen=True)
class _Taken:
    """What was taken out of the words of a command line; None where it was not given."""

    objective: str | None
    recipe: str | None
    config: str | None


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and carry out the verb.

    Raises:
        ValueError: for a command line that cannot be parsed; the message is one line that names the option.
        SystemExit: after --help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    TYPED.clear()
    if words in (["--version"], ["-V"]):
        output.say(f"ncmi {ncmi.__version__}")
        return
    verbs.COMMAND[:] = ["ncmi", *words]
    words, modules = _take(words, "--imports")
    words, shells = _take(words, "--print-completion")
    _import(modules)
    given: dict[str, str | None] = {}
    for option in ("--objective", "--recipe", "--config"):
        words, values = _take(words, option)
        given[option[2:]] = values[-1] if values else None
    if given["objective"] is not None:
        given["objective"] = as_spelled(given["objective"], objective_names())
    if given["recipe"] is not None:
        given["recipe"] = as_spelled(given["recipe"], recipe_names())
    flags = {}
    for option in _FLAGS:
        count = len(words)
        words = [word for word in words if word.replace("_", "-") != option]
        flags[option] = len(words) < count
    verb = words[0] if words and not words[0].startswith("-") else None
    _see_where_options_work(verb, [f"--{name}" for name, value in given.items() if value], flags)
    verbs.DRY_RUN, output.QUIET = flags["--dry-run"], flags["--quiet"]
    if shells:
        _print_completion(as_spelled(shells[-1], _SHELLS))
        return
    work = _dispatch(words, _Taken(**given))
    check_verb(verb or "")
    work()


def _dispatch(words: list[str], taken: _Taken) -> Callable[[], None]:
    """Parse the words of a command line; what carries it out."""
    if words[:1] and words[0] in _GROUPS:
        group, description = _GROUPS[words[0]]
        table, prog, words = group, f"ncmi {words[0]}", words[1:]
    else:
        prog, description = "ncmi", _DESCRIPTION
        words, defaults = _defaults(words, taken)
        table = verbs.VERBS | {name: _typed(verbs.VERBS[name], defaults) for name in _MODELED}
        table |= {"slides": _slides, "data": _data}
    table = {name: _shown(name, verb, taken) for name, verb in table.items()}
    if words[:1] and words[0] in table:  # the verb alone: its errors name options as they are typed
        verb, name = table[words[0]], words[0]
        TYPED.update(options_of(verb, _known_names()))
        words = spell(words[1:], TYPED)
        return _parsed(
            words, f"{prog} {name}", lambda: tyro.cli(verb, prog=f"{prog} {name}", args=words, config=_CONFIG)
        )
    if words[:1] and not words[0].startswith("-"):
        near = nearest(words[0], table) or ":"
        raise ValueError(f"unknown verb {words[0]!r}{near} verbs are {', '.join(table)}")
    every = partial(tyro.extras.subcommand_cli_from_dict, table, prog=prog, description=description, config=_CONFIG)
    return _parsed(words, prog, lambda: every(args=words or ["--help"]))


def _parsed(words: list[str], prog: str, parse: Callable[[], Any]) -> Callable[[], None]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _wide_enough(words):
            done: Callable[[], None] = parse()
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(parse_error(errors.getvalue(), words, TYPED, prog)) from None
    return done


@contextlib.contextmanager
def _wide_enough(words: list[str]) -> Iterator[None]:
    """A width in which the parser's messages keep their words whole."""
    before = os.environ.get("COLUMNS")
    narrow = shutil.get_terminal_size().columns < 80
    if narrow:
        os.environ["COLUMNS"] = "40" if {"-h", "--help"} & set(words) else "80"
    try:
        yield
    finally:
        if narrow:
            os.environ.pop("COLUMNS")
            if before is not None:
                os.environ["COLUMNS"] = before


def _import(modules: list[str]) -> None:
    if modules and "" not in sys.path:
        with contextlib.suppress(OSError):  # the present folder may be gone
            folder = str(Path.cwd())
            sys.path += [] if folder in sys.path else [folder]
    for module in modules:
        try:
            import_module(module.removesuffix(".py"))
        except ImportError as error:
            raise ValueError(f"--imports {module}: {error}: is it in the present folder, or installed?") from error
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"--imports {module}: {error}: give the name of a module, such as mine for mine.py"
            ) from error
    verbs.IMPORTS[:] = [module.removesuffix(".py") for module in modules]


def _see_where_options_work(verb: str | None, given: list[str], flags: dict[str, bool]) -> None:
    for option in [*given, *(name for name, is_given in flags.items() if is_given)]:
        where = _TAKEN[option][0]
        if verb is not None and verb not in where and verb in {*verbs.VERBS, *_GROUPS} and option != "--quiet":
            raise ValueError(f"{option} does not go with {verb}: it is for {', '.join(where)}")


def _known_names() -> dict[str, tuple[str, ...]]:
    networks = ("auto", *NETWORKS)
    entries = (*objective_names(), *VARIANTS)
    return {"--objectives": objective_names(), "--networks": networks, "--network.name": networks, "--only": entries}


def _print_completion(shell: str) -> None:
    if shell not in _SHELLS:
        raise ValueError(f"--print-completion {shell}: choose one of {', '.join(_SHELLS)}")
    _, defaults = _defaults([], _Taken(None, None, None))
    table = verbs.VERBS | {name: _typed(verbs.VERBS[name], defaults) for name in _MODELED}
    table = {name: _shown(name, verb, _Taken(None, None, None)) for name, verb in table.items()}
    words = ["--tyro-print-completion", shell]
    try:
        tyro.extras.subcommand_cli_from_dict(table, prog="ncmi", args=words, config=_CONFIG)
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"--print-completion {shell}: {stop.code}") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"--print-completion {shell} needs a package: pip install {error.name}") from None


def _slides() -> None:
    """Whole-slide images: tile, embed, check, attend, simulate; ncmi slides --help tells them."""
    raise AssertionError("handled before it is parsed")


def _data() -> None:
    """Large folders of images, made into shards; ncmi data --help tells it."""
    raise AssertionError("handled before it is parsed")


def _defaults(words: list[str], taken: _Taken) -> tuple[list[str], dict[str, Any]]:
    """Type or default of each section of the recipe: by a file, a named recipe, or the kind of the data.

    Returns:
        The words, without the data where a recipe has taken it in, and the sections.
    """
    modeled = words[:1] and words[0] in _MODELED
    words = [
        word if place == 0 or Path(word).exists() else as_spelled(word, EMBEDDED) for place, word in enumerate(words)
    ]
    if taken.config is None and taken.recipe is None:
        kind = _kind_of_data(words)
        recipe = _behind(kind, taken.objective)
        return words, _sections(recipe) | {"data": DATA[kind]}
    name = words.pop(1) if modeled and len(words) > 1 and not words[1].startswith("-") else None
    named = None if taken.recipe is None else named_recipe(taken.recipe)
    if taken.config is None:
        assert named is not None
        if taken.objective not in (None, named.objective.name):
            named = replace(named, objective=objective_options(str(taken.objective))())
        if name is not None:
            if (kind := kind_of(name)) != named.data.kind:
                raise ValueError(
                    f"--recipe {taken.recipe} is for data of kind {named.data.kind}, and {name} is a {kind}"
                )
            named = replace(named, data=replace(named.data, name=name))
        return words, _sections(named)
    kind = "image" if name is None else kind_of(name, _folder(words))
    path = Path(taken.config).expanduser()
    recipe = read_config(path, partial(_behind, named=named), name=name, kind=kind, objective=taken.objective)
    return words, _sections(recipe)


def _embedded(word: str) -> str:
    return word if word in EMBEDDED or "-" not in word or Path(word).exists() else as_spelled(word, EMBEDDED)


def _behind(kind: Any, objective: str | None, named: Recipe | None = None) -> Recipe:
    if named is not None and named.data.kind == kind:
        same = objective in (None, named.objective.name)
        return named if same else replace(named, objective=objective_options(str(objective))())
    if kind not in DATA:
        raise ValueError(f"unknown kind of data {kind!r}: use {', '.join(DATA)}")
    options: ObjectiveOptions = objective_options(objective or "ncmi")()
    return Recipe(DATA[kind]("?"), objective=options, training=default_training(kind))


def _sections(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in ("data", "network", "objective", "training")}


def _folder(words: list[str]) -> str | None:
    folder = next((_take(words, option)[1] for option in ("--data.data-dir", "--data.data_dir")), [])
    return folder[-1] if folder else None


def _kind_of_data(words: list[str]) -> Kind:
    """The kind of the data that ``train`` or ``compare`` is given; images where none is named, as for --help."""
    if not words or words[0] not in _MODELED:
        return "image"
    folder, images = _folder(words), _take(words, "--data.images")[1]
    places = [place for place, word in enumerate(words) if place and not word.startswith("-")]
    # first behind the verb, or no value of an option before it; else a flag may stand before it
    names = [words[place] for place in places if place == 1 or not words[place - 1].startswith("--")]
    names = names or [words[place] for place in places]
    for number, name in enumerate(names, 1):
        try:
            return kind_of(name, folder, images[-1] if images else None)
        except (ValueError, OSError):
            # a value of an option may stand where the data does
            if number == len(names) and not {"-h", "--help"} & set(words):
                raise
    return "image"


def _take(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Take ``option VALUE`` and ``option=VALUE`` out of the arguments: what it says decides how the rest is typed."""
    rest, values = [], []
    iterator = iter(words)
    for word in iterator:
        if word == option:
            value = next(iterator, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"{option} needs a value")
            values.append(value)
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, values


def _typed(verb: Callable[..., None], defaults: dict[str, Any]) -> Callable[..., None]:
    """The verb with the sections of the recipe as types and defaults, for tyro to read."""
    signature = inspect.signature(verb)
    types = get_type_hints(verb)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name in defaults:
            default = defaults[parameter.name]
            types[parameter.name] = default if isinstance(default, type) else type(default)
            if isinstance(default, type):  # the data that is named
                parameter = parameter.replace(annotation=default)
            else:
                keyword = inspect.Parameter.KEYWORD_ONLY
                parameter = parameter.replace(kind=keyword, default=default, annotation=type(default))
        parameters.append(parameter)
    return _signed(verb, verb, parameters, types)


def _shown(name: str, verb: Callable[..., Any], taken: _Taken) -> Callable[..., Any]:
    """The verb, to be called later, with the options in its help that were taken out of the command line."""
    choices: dict[str, tuple[Any, Any]] = {
        "--objective": (Literal[objective_names()], taken.objective or "ncmi"),
        "--recipe": (Literal[recipe_names()] | None, taken.recipe),
        "--config": (Path | None, None),
        "--imports": (str | None, None),
        "--dry-run": (bool, False),
        "--quiet": (bool, False),
    }
    types = get_type_hints(verb)
    parameters = list(inspect.signature(verb).parameters.values())
    shown = []
    for option, (where, text) in _TAKEN.items():
        if name in where:
            kind, default = choices[option]
            own = f"taken_{option[2:].replace('-', '_')}"
            types[own] = Annotated[kind, tyro.conf.arg(name=option[2:], help=text)]
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(own, keyword, default=default, annotation=types[own]))
            shown.append(own)

    def later(*positional: Any, **named: Any) -> Callable[[], None]:
        return partial(verb, *positional, **{key: value for key, value in named.items() if key not in shown})

    return _signed(later, verb, parameters, types)


def _signed(
    function: Callable[..., Any], verb: Callable[..., Any], parameters: list[inspect.Parameter], types: dict[str, Any]
) -> Callable[..., Any]:
    """A function that calls another, with name and text of a verb, and a signature for tyro to read."""

    def call(*positional: Any, **named: Any) -> Any:
        return function(*positional, **named)

    call.__name__, call.__doc__, call.__module__ = verb.__name__, verb.__doc__, verb.__module__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = types
    return call


def in_typed_words(message: str) -> str:
    """A message with the options of the present verb as they are typed."""
    return as_typed(message, TYPED)
