"""``detprune evaluate lanes``: measure any checkpoint of a recipe's network, and write a submission."""

import json
from pathlib import Path
from typing import Annotated

import typer

from detprune.files import check_output_path
from detprune.files.atomic import atomic
from detprune.run.cli.evaluation import (
    Checkpoint,
    RecipeFile,
    evaluation,
    load_for_evaluation,
    read_recipe,
)
from detprune.run.cli.options import Assignments, file_place
from detprune_lanes.measure.submission import is_submission
from detprune_lanes.recipe import LaneRecipe
from detprune_lanes.task import LaneNetworkTask


def evaluate_lanes(
    recipe: RecipeFile,
    checkpoint: Checkpoint = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            parser=file_place,
            metavar="PATH",
            help="File for the lanes found, in the form of a TuSimple submission.",
        ),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """TuSimple's accuracy, F1, FP, FN and the sparsity of a lane detector, as JSON."""
    if submission is not None:
        check_output_path(submission, "--submission", replaces=is_submission)
    task = LaneNetworkTask(read_recipe(LaneRecipe, recipe, assignments))
    model = load_for_evaluation(task, checkpoint)
    if submission is not None:
        with atomic(submission) as temporary:
            temporary.write_text(task.submission(model), encoding="utf-8")
    typer.echo(json.dumps(evaluation(task, model)))
