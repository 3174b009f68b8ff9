"""Every module of the package that the documentation names by its path.

What moves inside ``detprune`` or its adapters is changed here and in ``docs/reference/api.md``; all other
pages name code by its public names.
"""

from importlib.metadata import entry_points, version
from pathlib import Path

import typer

import detprune
from detprune.methods import METHODS
from detprune.run.adapter import adapter_entry_points, implementation, load_adapter
from detprune.run.cli.main import app
from detprune.run.recipe import Recipe
from detprune.run.recipe.components import SETS_BY_NAME
from detprune.run.studies.progressive.spec import Progressive
from detprune.run.studies.study.spec import Study

VERSION = version("detprune")

METHOD_CLASSES, SET_CLASSES = METHODS, SETS_BY_NAME
SCHEDULES = {"pull": detprune.Pull, "growth": detprune.Growth}
BUDGET = detprune.Budget
BASE_RECIPE, STUDY, PROGRESSIVE = Recipe, Study, Progressive

PUBLIC_MODULES = (
    "detprune",
    "detprune.testing",
    "detprune_lightning",
    "detprune_classification",
    "detprune_lanes",
    "detprune_yolo",
)
"""The modules whose ``__all__`` the API reference has to cover."""

WITHOUT_PAGE = (
    r"(torch|lightning|pytorch_lightning|ultralytics|pathlib|collections|typing|types|numpy|rich|pydantic"
    r"|datetime|detprune[_a-z]*\.)[\w.]*"
    r"|(optional|Tensor|Size|nn\.Module|Optimizer|Path|Any|Mapping|Sequence|Callable|Iterator|Table|ClassVar"
    r"|collections\.abc\.Callable\[\[\]|Recipe|RunDirectory|Literal|Self|Annotated|abc\.ABC|dict\[str|[A-Z]|ZerosLostError)"
)
"""Names in signatures that have no page here (a regular expression, matched as a whole)."""


def recipes() -> dict[str, type[Recipe]]:
    """The recipe of every installed task, by the task's name."""
    names = [name for name in sorted(adapter_entry_points()) if load_adapter(name).implement]
    return {name: implementation(name).recipe for name in names}


def command_line() -> typer.Typer:
    """The command line with the commands that adapters add to ``evaluate`` and ``data``."""
    whole = typer.Typer(help=app.info.help, add_completion=False)
    whole.registered_commands.extend(app.registered_commands)
    for group in app.registered_groups:
        own = typer.Typer(help=group.typer_instance.info.help)
        for entry in sorted(entry_points(group=f"detprune.{group.name}"), key=lambda e: e.name):
            own.command(entry.name)(entry.load())
        whole.add_typer(own, name=group.name)
    return whole


def read_run(path: Path) -> object:
    """A finished run as the report reads it, for the example of a figure."""
    from detprune.run.report.run_files import (
        read_run,  # with matplotlib, which the build does not need
    )

    return read_run(path)
