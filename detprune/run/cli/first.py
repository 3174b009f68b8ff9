"""The commands to begin with a checkpoint: ``detprune init`` and ``detprune prune``."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detprune.errors import InputError
from detprune.run.cli.options import Assignments, file_place
from detprune.run.cli.run import run_recipe

if TYPE_CHECKING:
    from detprune.run.adapter import FirstRun, Implementation
    from detprune.run.recipe import Recipe

Checkpoint = Annotated[Path, typer.Argument(help="A trained network, such as best.pt.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Its data set (a YAML file); the one that the checkpoint names by default."),
]
Share = Annotated[float | None, typer.Option(help="Share of the MACs that is left.")]
Latency = Annotated[
    float | None,
    typer.Option(help="Share of the time in ONNX Runtime, on one thread here, that is left."),
]
Parameters = Annotated[float | None, typer.Option(help="Share of the parameters that is left.")]
Epochs = Annotated[
    int | None,
    typer.Option(min=2, help="Epochs in all; a share of the checkpoint's own by default."),
]


def init(
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Option(parser=file_place, metavar="PATH", help="File for the recipe.")
    ],
    data: Data = None,
    macs: Share = None,
    parameters: Parameters = None,
    latency: Latency = None,
    epochs: Epochs = None,
) -> None:
    """Write a commented recipe that prunes channels of a checkpoint; half of its MACs by default."""
    from detprune.files import check_output_path
    from detprune.files.atomic import atomic

    check_output_path(out, "--out")
    if os.path.lexists(out):
        raise InputError(f"--out: {out} exists already; choose another file")
    text, _ = _recipe(_wanted(checkpoint, data, macs, parameters, latency, epochs), [])
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(f"recipe: {out}")
    typer.echo(f"run it with: detprune run {shlex.quote(str(out))}")


def prune(
    checkpoint: Checkpoint,
    data: Data = None,
    macs: Share = None,
    parameters: Parameters = None,
    latency: Latency = None,
    epochs: Epochs = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; runs/<checkpoint>_<budget> by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False,
) -> None:
    """Prune channels of a checkpoint, half of its MACs by default, with the recipe that init writes."""
    given = assignments or []
    asked = {"macs": macs, "parameters": parameters, "latency": latency}
    for name, value in _set_budget(given).items():  # so that the run is named by it
        if (before := asked.get(name)) is not None and before != value:
            raise InputError(
                f"--{name} is {before:g} and --set budget.{name} is {value:g}; give one of them"
            )
        asked[name] = value
    wanted = _wanted(checkpoint, data, asked["macs"], asked["parameters"], asked["latency"], epochs)
    _, (implementation, recipe) = _recipe(wanted, given)
    run_recipe(implementation, recipe, out or Path("runs") / recipe.name, overwrite=overwrite)


def _set_budget(assignments: list[str]) -> dict[str, float]:
    """The shares of the budget that ``--set`` gives."""
    from detprune.run.recipe import read_assignments

    found = {}
    for values in read_assignments(assignments):
        for key, value in values.items():
            name = key.removeprefix("budget.")
            share = isinstance(value, int | float) and not isinstance(value, bool)
            if key != name and name in ("macs", "parameters", "latency") and share:
                found[name] = float(value)
    return found


def _wanted(
    checkpoint: Path,
    data: Path | None,
    macs: float | None,
    parameters: float | None,
    latency: float | None,
    epochs: int | None,
) -> "FirstRun":
    from detprune.run.adapter import FirstRun

    given = {"macs": macs, "parameters": parameters, "latency": latency}
    budget = {name: value for name, value in given.items() if value is not None} or {"macs": 0.5}
    if len(budget) > 1:
        names = " and ".join(f"--{name}" for name in budget)
        raise InputError(f"{names} are given; give one budget")
    for name, value in budget.items():
        if not 0 < value <= 1:
            raise InputError(f"--{name} is {value:g}, allowed is a number above 0, up to 1")
    return FirstRun(checkpoint, budget, data, epochs)


def _recipe(
    wanted: "FirstRun", assignments: list[str]
) -> "tuple[str, tuple[Implementation, Recipe]]":
    """The recipe for a checkpoint as text, and as what runs it after the settings."""
    from detprune.files import parse_yaml
    from detprune.run.adapter import recipe_of
    from detprune.run.first_recipe import first_recipe
    from detprune.run.recipe import read_assignments

    text = first_recipe(wanted)
    where = f"the recipe for {wanted.checkpoint}"
    return text, recipe_of(parse_yaml(text, where), where, read_assignments(assignments))
