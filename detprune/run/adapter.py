"""Adapters: the object by which a package makes its task known to recipes, and the search for adapters."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detprune.errors import InputError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from torch import nn

    from detprune.run.directory import RunDirectory
    from detprune.run.recipe import Recipe, Settings
    from detprune.run.task import Task

ENTRY_POINTS = "detprune.adapters"

Export = Callable[[Path, Path | None], Sequence[str]]
"""Exports a run's pruned network to a file, or to the default one, and returns lines to print."""


@dataclass(frozen=True)
class FirstRun:
    """What somebody wants of a checkpoint.

    Attributes:
        checkpoint: the trained network.
        budget: the share that is left, by its name in a recipe: ``{"macs": 0.5}``.
        data: the data set; None: the one that the checkpoint names.
        epochs: of constrained training and retraining together; None: a share of the checkpoint's own.
    """

    checkpoint: Path
    budget: Mapping[str, float]
    data: Path | None = None
    epochs: int | None = None

    @property
    def name(self) -> str:
        """Name of the run: the checkpoint's with the budget; what no name of a run may hold becomes ``_``."""
        parts = [self.checkpoint.stem, *(f"{k}_{value:g}" for k, value in self.budget.items())]
        return re.sub(r"[^\w.+-]", "_", "_".join(parts))


@dataclass(frozen=True)
class Implementation:
    """The part of an adapter that needs its framework.

    Attributes:
        recipe: the type of the adapter's recipes.
        task: (recipe, run directory) → the task.
        formats: name of an export format → (run directory, file or None) → lines to print, for ``detprune export``.
        rebuild: the result of ``Task.describe_network`` → the dense network, for ``detprune.load``.
        int8: as ``formats``, for ``detprune export --int8``.
        first_recipe: writes a commented recipe for a checkpoint, for ``detprune init`` and ``detprune prune``.
    """

    recipe: "type[Recipe]"
    task: "Callable[[Recipe, RunDirectory], Task]"
    formats: "Mapping[str, Export]" = field(default_factory=dict)
    rebuild: "Callable[[Mapping[str, Any]], nn.Module] | None" = None
    int8: "Mapping[str, Export]" = field(default_factory=dict)
    first_recipe: Callable[[FirstRun], str] | None = None


@dataclass(frozen=True)
class Adapter:
    """The object that a package publishes in the entry-point group ``detprune.adapters``, importing no framework.

    The commands ``detprune evaluate NAME`` and ``detprune data NAME`` are Typer functions in entry-point groups of
    their own, ``detprune.evaluate`` and ``detprune.data``, so that they need not load the adapter.

    Attributes:
        line: description in one line, for ``detprune list``.
        requires: import names of the packages that the adapter cannot do without.
        models, data_sets: functions that return name → description, for ``detprune list``.
        implement: imports the framework and returns the ``Implementation``; None for an adapter with callbacks only.
    """

    line: str
    requires: Sequence[str] = ()
    models: Callable[[], Mapping[str, str]] = field(default=dict)
    data_sets: Callable[[], Mapping[str, str]] = field(default=dict)
    implement: Callable[[], Implementation] | None = None


def adapter_entry_points() -> dict[str, "EntryPoint"]:
    """Every installed adapter, not yet imported."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def load_adapter(name: str) -> Adapter:
    """Import an adapter, without its framework.

    Raises:
        InputError: there is no such adapter, or a package that it needs is not installed.
    """
    entries = adapter_entry_points()
    if name not in entries:
        raise unknown("task", name, entries)
    adapter = load_entry(entries[name])
    if not isinstance(adapter, Adapter):
        raise InputError(
            f"the entry point {name!r} of {ENTRY_POINTS} gives {adapter!r}, which is no Adapter"
        )
    return adapter


def implementation(name: str) -> Implementation:
    """Import the framework of an adapter.

    Raises:
        InputError: there is no such adapter, it runs no recipes, or a package that it needs is not installed.
    """
    adapter = load_adapter(name)
    if adapter.implement is None:
        raise InputError(f"the adapter {name!r} runs no recipes")
    with _missing_packages(adapter_entry_points()[name]):
        return adapter.implement()


def load_recipe(path: Path, settings: "Sequence[Settings]" = ()) -> "tuple[Implementation, Recipe]":
    """Read a recipe, apply settings, one mapping after the other, and find the implementation that runs it.

    Raises:
        InputError: everything that is wrong with it.
    """
    from detprune.run.recipe import read_yaml  # pydantic, which no adapter needs

    try:
        return recipe_of(read_yaml(path), str(path), settings)
    except InputError as error:
        if settings or not (path.parent / "progress.json").is_file():
            raise
        raise InputError(
            f"{error}\nIt is the recipe of the run in {path.parent}; if it was cut off or edited, copy the recipe that "
            "the run began with over it"
        ) from error


def recipe_of(
    values: Mapping[str, Any], where: str, settings: "Sequence[Settings]" = ()
) -> "tuple[Implementation, Recipe]":
    """The recipe with these values, after the settings; ``where`` names it in messages.

    Raises:
        InputError: everything that is wrong with it.
    """
    from detprune.run.recipe import assign, validate

    changed = dict(values)
    for each in settings:
        changed = assign(changed, each)
    if "task" not in changed:
        if "recipe" in changed and "rates" in changed:
            command = "study" if "methods" in changed else "progressive"
            raise InputError(f"{where} describes several runs: detprune {command} {where}")
        raise InputError(
            f"{where}: task is missing; it names the adapter: {', '.join(sorted(adapter_entry_points()))}"
        )
    found = implementation(str(changed["task"]))
    return found, validate(found.recipe, changed, where)


def load_entry(entry: "EntryPoint") -> Any:
    """Import what an entry point names.

    Raises:
        InputError: a package that it needs is not installed.
    """
    with _missing_packages(entry):
        return entry.load()


@contextmanager
def _missing_packages(entry: "EntryPoint") -> "Iterator[None]":
    """Turn a failed import into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _not_installed(entry, str(error.name)) from error


def check_packages(name: str, adapter: Adapter) -> None:
    """Check that the packages that an adapter requires are installed, without importing them.

    Raises:
        InputError: one is not installed.
    """
    for package in adapter.requires:
        if find_spec(package) is None:
            raise _not_installed(adapter_entry_points()[name], package)


def _not_installed(entry: "EntryPoint", package: str) -> InputError:
    own = entry.module.partition(".")[0]
    extras = {e.module.partition(".")[0]: e.name for e in adapter_entry_points().values()}
    return InputError(
        f"{entry.name!r} needs the package {package!r}, which is not installed; install it "
        f"with: pip install 'detprune[{extras.get(own, own)}]'"
    )
