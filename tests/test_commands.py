"""The commands of README and docs: each is parsed as the program itself parses it, or stands below with the reason."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

from ncmi.cli import app, data, slides, verbs
from ncmi.data.kinds import EMBEDDED
from ncmi.objectives.options import objective_names, objective_options
from ncmi.recipes import DATA, Augmentation, BagNetwork, Network, Training
from ncmi.training.reproduction import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("ncmi", "pip", "uv", "python", "torchrun", "srun")
# shell lines around commands, and programs of others that the tests need or run themselves
SHELL = ("export", "code=$?", "case", "exit", "source", "pytest", "ruff", "mypy", "pre-commit", ".ci/run", "cd")
NOT_PARSED = {
    "ncmi compare digits --imports my_losses --objectives ncmi cross_entropy hinge": (
        "its module is the Python block above it, which tests/test_docs.py runs"
    ),
}
# what data the names in the pages stand for
KINDS = EMBEDDED | {
    "DATA": "table",
    "FEATURES": "bags",
    "cifar100": "image",
    "letters.csv": "table",
    "people.csv": "table",
    "pictures/": "image",
    "s3://bucket/shards": "image",
    "shards": "image",
    "tiles/features": "bags",
    "wine.csv": "table",
    "wines.csv": "table",
}
# values that stand for a choice of the reader
CHOICES = {"NAME": "focal"}


def typed_in(text: str) -> Iterator[str]:
    """Commands of a page: lines of its shell blocks, and code in its text that begins with a program."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for language, block in fence.findall(text):
        if language == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                yield from (part.strip() for part in re.split(r" && ", shlex.join(words).replace("'&&'", "&&")))
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", fence.sub("", text)):
        words = code.split()
        if words[0] in PROGRAMS and len(words) > 1:
            # [--optional], one|of|these, and what goes on
            plain = re.sub(r"[\[\]…]", "", " ".join(words))
            yield from (part.strip() for part in re.sub(r"(?<=\w)\|[\w|]+", "", plain).split("&&"))


# each command once, with the first page that has it
COMMANDS = {
    command: page
    for page in reversed(PAGES)
    for command in typed_in(page.read_text("utf-8"))
    if command and shlex.split(command)[0] not in SHELL
}
VERBS = {**verbs.VERBS, **slides.VERBS, **data.VERBS}


class Parsed(Exception):
    """Raised where a verb would begin its work."""


def parse_ncmi(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(verb: str) -> None:
        raise Parsed

    def kind_of(name: str, *_: Any) -> str:
        return KINDS[name]

    monkeypatch.setattr(app, "check_verb", stop)
    monkeypatch.setattr(app, "kind_of", kind_of)
    words = [CHOICES.get(word, word) for word in words]
    ends = SystemExit if "--help" in words else Parsed
    if words[0] == "--print-completion" or set(words) <= VERBS.keys() | {"slides", "data", "--help"}:
        return  # a verb by its name
    with pytest.raises(ends):
        app.run(words)
    if "--only" in words:
        named = words[words.index("--only") + 1 :]
        assert set(named[: next((n for n, word in enumerate(named) if word[0] == "-"), None)]) <= {
            *app._known_names()["--only"],
            *VARIANTS,
        }


def parse_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for word in words:
        for names in re.findall(r"^(?:\.|ncmi)\[([\w,]+)\]", word):
            assert set(names.split(",")) <= extras.keys(), word
    for option, name in itertools.pairwise(words):
        assert option != "-c" or (ROOT / name).is_file(), name


def parse_script(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.is_file(), f"no {words[0]}"
    source = "".join(path.read_text("utf-8") for path in (script, *script.parent.glob("_*.py")))
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in source, f"{words[0]} has no {word}"


@pytest.mark.parametrize("command", [pytest.param(c, id=f"{page.stem}: {c}"[:100]) for c, page in COMMANDS.items()])
def test_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if command in NOT_PARSED:
        pytest.skip(NOT_PARSED[command])
    program, *words = shlex.split(command)
    if program == "srun":
        program, *words = [word for word in words if not word.startswith(("--kill", "--ntasks"))]
    if program == "torchrun":
        words = words if "ncmi" in words else [*words, "-m", "ncmi", "doctor"]  # said of torchrun's own options
        options = get_args_parser().parse_args(words)
        assert options.training_script == "ncmi"
        assert options.module
        program, words = "ncmi", options.training_script_args
    if program == "python" and words[0] == "-m":
        program, words = words[1], words[2:]
    match program:
        case "ncmi":
            parse_ncmi(words, monkeypatch)
        case "pip" | "uv":
            parse_pip(words)
        case "python" if words[0] == "-c":
            compile(words[1], command, "exec")
        case "python":
            parse_script(words)
        case _:
            assert program in ("build", "venv"), f"not known here: {command}"


def test_options_in_the_text_exist() -> None:
    classes = [*DATA.values(), Network, BagNetwork, Training, Augmentation]
    classes += [objective_options(name) for name in objective_names()]
    sections = {field.name for one in classes for field in fields(one)}
    known = {name for verb in VERBS.values() for name in inspect.signature(verb).parameters} | sections
    known |= {option[2:].replace("-", "_") for option in app._TAKEN} | {"help", "version", "print_completion"}
    scripts = "".join(p.read_text("utf-8") for name in ("benchmarks", "tools") for p in (ROOT / name).glob("*.py"))
    launchers = {"--gpus-per-node", "--gpus-per-task", "--ntasks-per-node", "--signals-to-handle", "--master-port"}
    launchers |= {"--no-deps", "--index-url", "--extra-index-url"}
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")):
            for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]", code):
                name = option.rpartition(".")[2].removeprefix("--").removeprefix("no-").replace("-", "_")
                ours = name in known or f'"{option}"' in scripts
                assert ours or option in launchers, f"{page.name}: there is no {option}"


def test_what_is_left_out_still_stands_in_a_page() -> None:
    assert set(NOT_PARSED) <= {command for page in PAGES for command in typed_in(page.read_text("utf-8"))}
