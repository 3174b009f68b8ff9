"""The metric that a dense network keeps at several budgets, right after its channels are removed, without training.

Retraining makes up for most of the loss, so a value is a floor of what a run reaches. Values rank budgets and
allocations of one network; docs/results.md compares that ranking with trained networks.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from rich.progress import track
from rich.table import Table
from torch import nn

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.latency_table import read_table
from detprune.errors import InputError
from detprune.methods import OneShot
from detprune.pruner import Pruner
from detprune.run.adapter import Implementation
from detprune.run.directory import RunDirectory
from detprune.run.latency.choosing import measured_budget, measured_times
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune.run.report.style import BLUE, ORANGE, drawing, new_figure, save
from detprune.run.shrinking import macs
from detprune.run.task import Task, starting_network

SHARES = (0.8, 0.6, 0.4, 0.3)
"""Shares of the dense network that are tried, beside the recipe's own."""

Spread = Literal["uniform", "global"]
ALLOCATIONS: tuple[Spread, ...] = ("uniform", "global")

_WORDS = {"macs": "MACs", "parameters": "parameters", "latency": "time"}
_HEADINGS = {**_WORDS, "latency": "measured time"}


@dataclass(frozen=True)
class Point:
    """A network from which channels were removed, measured before any training.

    Attributes:
        allocation: how the budget was spread over the layers.
        share: the budget.
        macs, parameters: shares of the dense network's that are left.
        latency: measured share of its time; None where that was not asked for, or the device is not here.
        loss: task loss on training images.
        metric: the headline metric on the test data.
    """

    allocation: Spread
    share: float
    macs: float
    parameters: float
    loss: float
    metric: float
    latency: float | None = None


@dataclass(frozen=True)
class BudgetCurve:
    """Points of one network.

    Attributes:
        kind: what the budget bounds: ``macs``, ``parameters`` or ``latency``.
        name: name of the network.
        headline: the metric.
        dense: the metric of the dense network.
        dense_loss: its task loss.
        own: the recipe's budget.
        points: by share, falling, then in the order of ``ALLOCATIONS``.
        unreachable: share and allocation that no widths reach → the error.
        recipe: the recipe, with the better allocation at its own budget.
    """

    kind: str
    name: str
    headline: Metric
    dense: float
    dense_loss: float
    own: float
    points: Sequence[Point]
    unreachable: Mapping[tuple[float, Spread], str]
    recipe: Recipe

    def table(self) -> Table:
        """The points as rows."""
        table = Table(
            title=f"{self.name}: channels removed, before any training", title_justify="left"
        )
        others = ["parameters"] if self.kind == "macs" else ["macs"]
        if any(point.latency is not None for point in self.points):
            others = ["latency", *others]
        table.add_column(_WORDS[self.kind], justify="right")
        for allocation in ALLOCATIONS:
            table.add_column(f"{allocation}: {self.headline.name}", justify="right")
            table.add_column("loss", justify="right")
            for other in others:
                table.add_column(_HEADINGS[other], justify="right")
        table.add_row("1", f"{self.dense:.4f}", f"{self.dense_loss:.3f}", *("1" for _ in others))
        for share in sorted({point.share for point in self.points}, reverse=True):
            cells = [f"{share:g}"]
            of = {point.allocation: point for point in self.points if point.share == share}
            for allocation in ALLOCATIONS:
                cells += _cells(of.get(allocation), others)
            table.add_row(*cells)
        table.caption = "\n".join(
            [
                "Batch norm's statistics are estimated anew. Retraining makes up for most of the loss: a value is a "
                "floor, and ranks budgets of this network.",
                *(
                    f"{share:g}, {allocation} is out of reach: {why.partition(';')[0]}"
                    for (share, allocation), why in self.unreachable.items()
                ),
            ]
        )
        table.caption_justify = "left"
        return table

    def draw(self, path: Path) -> None:
        """Draw the curve into a PNG file."""
        with drawing():
            figure = new_figure(3.6, width=6.0)
            axes = figure.subplots()
            for allocation, colour, style in zip(
                ALLOCATIONS, (BLUE, ORANGE), ("-o", "--s"), strict=True
            ):
                own = [(1.0, self.dense)]
                own += [(p.share, p.metric) for p in self.points if p.allocation == allocation]
                axes.plot(*zip(*own, strict=True), style, color=colour, label=allocation)
            axes.set_xlabel(f"share of the {_WORDS[self.kind]} that is left")
            axes.set_ylabel(f"{self.headline.name}, before any training")
            axes.invert_xaxis()
            axes.legend()
            save(figure, path)


def _cells(point: Point | None, others: Sequence[str]) -> list[str]:
    if point is None:
        return [""] * (2 + len(others))
    left = [getattr(point, other) for other in others]
    texts = ["" if value is None else f"{value:.2f}" for value in left]
    return [f"{point.metric:.4f}", f"{point.loss:.3f}", *texts]


def budget_curve(implementation: Implementation, recipe: Recipe, images: int) -> BudgetCurve:
    """Remove channels of the recipe's dense network at several budgets, and measure each.

    Args:
        implementation: implementation of the recipe's task.
        recipe: names the weights of the dense network, and a budget in MACs, parameters or latency.
        images: training images on which the loss is measured.

    Raises:
        InputError: no weights, no such budget, or a latency that cannot be measured or reached.
    """
    recipe.require_weights("from which channels could be removed")
    kind = next((k for k in _WORDS if getattr(recipe.budget, k) is not None), None)
    if kind is None:
        raise InputError(
            "suggest compares shares of the network that are left; give budget.macs, budget.parameters or "
            "budget.latency"
        )
    own = float(getattr(recipe.budget, kind))
    with TemporaryDirectory(prefix="detprune-") as scratch:
        task = implementation.task(recipe, RunDirectory(Path(scratch)))
        model = starting_network(task).eval()
        loss = task.loss_probe(model, images)()
        dense = float(task.evaluate(model)[task.metric])
        shares = sorted({*SHARES, own}, reverse=True)
        points, unreachable = _points(task, model, kind, shares, images, Path(scratch))
    best = _best([point for point in points if point.share == own])
    planned = replace(recipe.budget, allocation=best) if best else recipe.budget
    return BudgetCurve(
        kind,
        task.model_name,
        task.metrics[0],
        dense,
        loss,
        own,
        points,
        unreachable,
        recipe.model_copy(update={"budget": planned}),
    )


def _points(
    task: Task,
    model: nn.Module,
    kind: str,
    shares: Sequence[float],
    images: int,
    scratch: Path,
) -> tuple[list[Point], dict[tuple[float, Spread], str]]:
    channels = task.sparsity_set(model)
    if not isinstance(channels, CoupledChannels):
        raise TypeError("the set does not remove whole channels")
    stated = task.budget(model)
    times = None
    if kind == "latency":
        times = measured_times(model, channels, stated, task.finish_shrinking)

    def budget_of(share: float, allocation: Spread) -> tuple[Budget, float | None]:
        changes: dict[str, Any] = {kind: share, "allocation": allocation}
        budget, latency = replace(stated, **changes), None
        if kind == "latency":
            table = scratch / f"{share}_{allocation}.yaml"
            finish = task.finish_shrinking
            budget = measured_budget(
                model, channels, budget, table=table, finish=finish, times=times
            )
            latency = (read_table(table).chosen or {}).get("measured")
        return budget, latency

    points: list[Point] = []
    unreachable: dict[tuple[float, Spread], str] = {}
    for share in track(list(shares), "removing channels", transient=True):
        for allocation in ALLOCATIONS:
            try:
                budget, latency = budget_of(share, allocation)
                point = _point(task, model, channels, share, allocation, images, budget, latency)
            except InputError as error:
                unreachable[share, allocation] = str(error)
            else:
                points.append(point)
    own = float(getattr(task.recipe.budget, kind))
    if all(point.share != own for point in points):
        raise InputError(unreachable[own, ALLOCATIONS[0]])
    return points, unreachable


def _point(
    task: Task,
    model: nn.Module,
    channels: CoupledChannels,
    share: float,
    allocation: Spread,
    images: int,
    budget: Budget,
    latency: float | None,
) -> Point:
    clone = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in clone.parameters() if p.requires_grad], lr=0.0)
    pruner = Pruner(clone, optimizer, OneShot(), channels, budget)
    pruner.hard_prune()
    small = pruner.shrink()
    task.finish_shrinking(small)
    task.renew_batch_norm(small)
    return Point(
        allocation,
        share,
        macs(small, channels) / macs(model, channels),
        _numel(small) / _numel(model),
        task.loss_probe(small, images)(),
        float(task.evaluate(small)[task.metric]),
        latency,
    )


def _best(points: Sequence[Point]) -> Spread | None:
    """The allocation of least loss; the first of equal ones."""
    return min(points, key=lambda point: point.loss).allocation if points else None


def _numel(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
