"""``detprune evaluate lanes``: measure any checkpoint of a recipe's network, and write a submission."""

import json
from pathlib import Path
from typing import Annotated

import typer

from detprune.evaluation import evaluation, load_for_evaluation
from detprune.recipe import override, read_yaml, validate
from detprune.rundir import RunDirectory, atomic
from detprune_ufld.recipe import LaneRecipe
from detprune_ufld.task import LaneTask


def evaluate_lanes(
    recipe: Annotated[Path, typer.Argument(help="Recipe that names network and frames.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights to measure; the recipe's own without it.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Write the lanes found, as TuSimple's servers take them.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
) -> None:
    """TuSimple's accuracy, F1, FP, FN and the sparsity of a lane detector, as JSON."""
    values = override(read_yaml(recipe), assignments or [])
    task = LaneTask(validate(LaneRecipe, values), RunDirectory(Path()))
    model = load_for_evaluation(task, checkpoint)
    if submission is not None:
        with atomic(submission) as temporary:
            temporary.write_text(task.submission(model), encoding="utf-8")
    typer.echo(json.dumps(evaluation(task, model)))
