"""``detprune evaluate classification``: measure any checkpoint of a recipe's network."""

import json

import typer

from detprune.run.cli.evaluation import (
    Checkpoint,
    RecipeFile,
    evaluation,
    load_for_evaluation,
    read_recipe,
)
from detprune.run.cli.options import Assignments
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationNetworkTask


def evaluate(
    recipe: RecipeFile, checkpoint: Checkpoint = None, assignments: Assignments = None
) -> None:
    """Top-1 accuracy and sparsity of a classifier, as JSON."""
    task = ClassificationNetworkTask(read_recipe(ClassificationRecipe, recipe, assignments))
    typer.echo(json.dumps(evaluation(task, load_for_evaluation(task, checkpoint))))
