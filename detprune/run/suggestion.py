"""A plan of sparsities per layer for a recipe, from a scan of its dense network."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import track
from rich.table import Table

from detprune.budgets import Budget
from detprune.errors import InputError
from detprune.layers import Layer, select_layers
from detprune.run.adapter import Implementation
from detprune.run.directory import RunDirectory
from detprune.run.recipe import Recipe
from detprune.run.task import starting_network
from detprune.sensitivity import Scan, scan

_DIGITS = 6  # decimals of a sparsity in the recipe


@dataclass(frozen=True)
class Suggestion:
    """A plan of sparsities, the scan that it was found from, and the recipe with the plan."""

    recipe: Recipe
    plan: Mapping[str, float]
    scan: Scan
    others: Mapping[str, Mapping[str, float]]
    """Other allocations of the same budget, by name."""

    def table(self) -> Table:
        """The plan layer by layer, and the predicted loss of this plan and of other allocations."""
        table = Table(title="suggested sparsities", title_justify="left")
        table.add_column("layer", overflow="fold")
        table.add_column("weights", justify="right")
        table.add_column("sparsity", justify="right")
        table.add_column("kept", justify="right")
        table.add_column("alone, loss", justify="right")
        for name, sparsity in self.plan.items():
            numel = self.scan.numels[name]
            alone = self.scan.predicted({**dict.fromkeys(self.plan, 0.0), name: sparsity})
            table.add_row(
                name,
                f"{numel:,}",
                f"{sparsity:.4f}",
                f"{round((1 - sparsity) * numel):,}",
                f"{alone - self.scan.loss:+.4f}",
            )
        predictions = {"this plan": self.plan, **self.others}
        listed = ", ".join(f"{n} {self.scan.predicted(p):.4f}" for n, p in predictions.items())
        table.caption = (
            f"Loss of the dense network {self.scan.loss:.4f}; predicted before any training, as if layers "
            f"did not act on each other: {listed}"
        )
        return table


def suggest_plan(implementation: Implementation, recipe: Recipe, images: int) -> Suggestion:
    """Scan the recipe's dense network and choose the cheapest plan of its budget.

    Args:
        implementation: implementation of the recipe's task.
        recipe: names the weights of the dense network, and the budget.
        images: training images to measure the loss on.

    Raises:
        InputError: no weights, no target, or a set that fixes its own sparsity.
    """
    recipe.require_weights("whose layers could be scanned")
    with TemporaryDirectory(prefix="detprune-") as scratch:
        task = implementation.task(recipe, RunDirectory(Path(scratch)))
        model = starting_network(task).eval()
        budget = task.budget(model)
        if budget.pruned_share is None:
            raise InputError("budget has no target; give it a compression, for example 10")
        layers = select_layers(model, recipe.set, _uniform(budget), optimizer=None)
        found = scan(layers, recipe.set, task.loss_probe(model, images), _with_progress)
    shapes = {layer.name: layer.weight.shape for layer in layers}
    plan = {name: round(s, _DIGITS) for name, s in found.cheapest(budget.pruned_share).items()}
    others = {
        name: dataclasses.replace(_uniform(budget), allocation=name).allocate(shapes)
        for name in ("uniform", "erk")
    }
    planned = dataclasses.replace(
        recipe.budget, scope="layer", allocation=plan, sparsity=None, compression=None
    )
    return Suggestion(recipe.model_copy(update={"budget": planned}), plan, found, others)


def _uniform(budget: Budget) -> Budget:
    return dataclasses.replace(budget, scope="layer", allocation="uniform")


def _with_progress(layers: Sequence[Layer]) -> Iterable[Layer]:
    return track(layers, "scanning layers", transient=True)
