"""The code of README and docs runs: Python in order, YAML as recipes, command lines as the parser reads them."""

import shlex
import tomllib
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import places
import pytest
import typer
import yaml
from doc_pages import PAGES, ROOT, Block, blocks, commands
from page_setup import REPLACED, SETUPS

from command_line import detprune_here

PYTHON = {page: list(found) for page, found in groupby(blocks("python"), lambda b: b.page)}
SLOW = {"README.md", "docs/guides/own_loop.md", "docs/guides/yolo.md"}
OWN_TEST = {"docs/extending/adapter.md"}  # test_extending.py


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page in PYTHON
        if page not in OWN_TEST
    ],
)
def test_python_blocks_run_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    names |= SETUPS.get(page, lambda folder: {})(tmp_path)
    for block in changed(page):
        # blank lines in front: a traceback shows the line of the page
        code = compile("\n" * (block.line - 1) + block.code, str(PAGES[page]), "exec")
        exec(code, names)


def changed(page: str) -> list[Block]:
    """The blocks with what the test runs in place of large data and long trainings."""
    found = PYTHON[page]
    for old, new in REPLACED.get(page, []):
        assert any(old in block.code for block in found), f"{page} has no {old!r} any more"
        found = [Block(b.page, b.line, b.language, b.code.replace(old, new)) for b in found]
    return found


@pytest.mark.parametrize("page", sorted(SETUPS))
def test_no_setup_is_left_over(page: str) -> None:
    assert page in PYTHON


# ------------------------------------------------------------------ YAML

BASE = {
    "task": "classification",
    "name": "base",
    "model": {"name": "cifar_resnet20"},
    "method": "admm",
    "budget": {"compression": 10},
    "stages": {"dense": {"epochs": 1}, "constrained": {"epochs": 1}, "retrain": {"epochs": 1}},
}
"""A recipe to which the fragments on the pages are added."""


@pytest.mark.parametrize("block", list(blocks("yaml")), ids=lambda block: block.id)
def test_yaml_blocks_are_valid(block: Block) -> None:
    values = yaml.safe_load(block.code)
    if "rates" in values:
        kind = places.STUDY if "methods" in values else places.PROGRESSIVE
        kind.model_validate(values)
        return
    if block.page in OWN_TEST:
        assert values["task"] == "spirals"
        return
    values = values if "task" in values else BASE | values
    places.recipes()[values["task"]].model_validate(values)


# ------------------------------------------------------------------ command lines

COMMANDS = dict(commands())


@cache  # it imports every adapter: not while tests are collected
def tree() -> Any:
    return typer.main.get_command(places.command_line())


def parsed(words: list[str]) -> None:
    """Read a command line as ``detprune`` would; an error is what it would print."""
    command = tree()
    name = "detprune"
    while getattr(command, "commands", None):
        assert words, f"{name} is not complete"
        name, *words = words
        assert name in command.commands, f"unknown command {name}"
        command = command.commands[name]
    command.make_context(name, list(words))


@pytest.mark.parametrize("where", COMMANDS)
def test_command_lines_are_understood(where: str) -> None:
    words = shlex.split(COMMANDS[where])
    if words[0] == "detprune":
        parsed(words[1:])
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert f"\n{words[1]}: " in makefile
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = words[2].partition("[")[2].rstrip("]")
        assert not extras or extras in project["optional-dependencies"]
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
    else:
        pytest.fail(f"no test knows what to do with {COMMANDS[where]!r}")


def test_cheap_command_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = next(b.code for b in blocks("yaml") if b.page == "docs/quickstart.md")
    Path("recipe.yaml").write_text(recipe, encoding="utf-8")
    cheap = {line for line in COMMANDS.values() if line.split()[1:2] in (["validate"], ["list"])}
    cheap = {line for line in cheap if "RECIPE" not in line}
    assert {"detprune validate recipe.yaml", "detprune list"} <= cheap
    for line in sorted(cheap):
        assert detprune_here(*shlex.split(line)[1:], monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "batch_norm_images: 256" in out
    assert "gradual_magnitude" in out


def configs() -> list[tuple[str, str]]:
    """(page and line, file) of every file of the project that a command line names."""
    found = [(where, word) for where, line in COMMANDS.items() for word in shlex.split(line)]
    return [(where, word) for where, word in found if word.startswith(("configs/", "tools/"))]


@pytest.mark.parametrize(("where", "file"), configs())
def test_files_in_command_lines_exist(where: str, file: str) -> None:
    assert (ROOT / file).is_file()
