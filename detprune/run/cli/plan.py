"""The commands to plan a run: ``detprune list``, ``detprune validate`` and ``detprune suggest``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from detprune.errors import InputError
from detprune.run.cli.options import Assignments, file_place


def suggest(
    recipe: Annotated[Path, typer.Argument(help="A recipe whose model has weights.")],
    out: Annotated[
        Path,
        typer.Option(parser=file_place, metavar="PATH", help="File for the recipe with the plan."),
    ],
    assignments: Assignments = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to measure on.")] = 256,
) -> None:
    """Measure what a budget costs before any training, and write a recipe with the better plan.

    Whole channels: the metric at 0.8, 0.6, 0.4 and 0.3 of the network and at the recipe's own budget, as a table
    and, beside the recipe, as a curve. Single weights: a sparsity for every layer, by a sensitivity scan; all
    layers together reach the rate of the recipe's budget.
    """
    from rich.console import Console

    from detprune.channels import CoupledChannels
    from detprune.files import check_output_path
    from detprune.files.atomic import atomic
    from detprune.run.adapter import load_recipe
    from detprune.run.budget_curve import BudgetCurve, budget_curve
    from detprune.run.recipe import dump_yaml, read_assignments
    from detprune.run.suggestion import Suggestion, suggest_plan

    check_output_path(out, "--out")
    if os.path.lexists(out):
        raise InputError(f"--out: {out} exists already; choose another file")
    implementation, resolved = load_recipe(recipe, read_assignments(assignments or []))
    found: BudgetCurve | Suggestion
    picture = out.with_name(f"{out.name.removesuffix('.yaml').removesuffix('.yml')}.png")
    if isinstance(resolved.set, CoupledChannels):
        check_output_path(picture, "--out")
        if os.path.lexists(picture):
            raise InputError(
                f"--out: the curve is drawn beside {out}, as {picture}, which exists already; choose another file"
            )
        found = budget_curve(implementation, resolved, images)
    else:
        found = suggest_plan(implementation, resolved, images)
    with atomic(out) as temporary:
        temporary.write_text(dump_yaml(found.recipe), encoding="utf-8")
    Console(markup=False).print(found.table())
    typer.echo(f"recipe: {out}")
    if isinstance(found, BudgetCurve):
        found.draw(picture)
        typer.echo(f"curve: {picture}")


def validate_recipe(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")], assignments: Assignments = None
) -> None:
    """Check a recipe without running it, and print it with every default spelled out."""
    from detprune.run.adapter import load_recipe
    from detprune.run.recipe import dump_yaml, read_assignments

    _, resolved = load_recipe(recipe, read_assignments(assignments or []))
    typer.echo(dump_yaml(resolved), nl=False)


def list_components() -> None:
    """List methods, sets, adapters, models and data sets."""
    from rich.console import Console

    from detprune.methods import METHODS
    from detprune.run.adapter import Adapter, adapter_entry_points, check_packages, load_adapter
    from detprune.run.cli.terminal import first_line, listing
    from detprune.run.recipe.components import SETS_BY_NAME

    console = Console(markup=False)
    methods = {name: first_line(kind) for name, kind in METHODS.items()}
    console.print(listing("methods", methods))
    sets = {name: first_line(kind) for name, kind in SETS_BY_NAME.items()}
    console.print(listing("sets", sets))
    adapters: dict[str, Adapter] = {}
    lines = {}
    for name in sorted(adapter_entry_points()):
        try:
            adapter = load_adapter(name)
            check_packages(name, adapter)
            adapters[name], lines[name] = adapter, adapter.line
        except InputError as error:
            lines[name] = f"not usable: {error}"
    console.print(listing("adapters", lines))
    for name, adapter in adapters.items():
        for what, table in (("models", adapter.models()), ("data sets", adapter.data_sets())):
            if table:
                console.print(listing(f"{name}: {what}", table))
