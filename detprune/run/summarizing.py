"""The summary of a run: settings, results of the stages, and counts of every layer, as in ``summary.json``."""

import platform
from collections.abc import Mapping

import torch
from torch import nn

import detprune
from detprune.run.directory import RunDirectory
from detprune.run.recipe import Recipe
from detprune.run.recipe.components import registered_name
from detprune.run.records import Layer, Stage, StageResult, Summary
from detprune.run.task import Task
from detprune.summary import Summary as Counts


def summarize_run(
    task: Task, recipe: Recipe, run: RunDirectory, model: nn.Module, counts: Counts, command: str
) -> Summary:
    """The summary without verification, removal of channels and measurement, which are added later.

    Args:
        model: the network before channels were removed from it.
        counts: counts of its weights, before and after.
        command: command that reproduces the run.
    """
    stages = run.finished()
    removed = stages.get("removed")
    seconds: dict[str, float | None] = {
        "dense": stages["dense"].seconds,
        "constrained": stages["hard_pruned"].seconds,
        "retrain": stages["final"].seconds,
        **({} if removed is None else {"removal": removed.seconds}),
        "total": round(sum(result.seconds for result in stages.values()), 3),
    }
    return Summary(
        task=recipe.task,
        name=recipe.name,
        model=task.model_name,
        data=task.data_name,
        method=registered_name(recipe.method),
        sparsity_set=registered_name(recipe.set),
        metric=task.metric,
        units=task.metrics,
        dense=stages["dense"].metric,
        hard_pruned=stages["hard_pruned"].metric,
        removed=None if removed is None else removed.metric,
        final=stages["final"].metric,
        metrics={stage: dict(result.metrics) for stage, result in stages.items()},
        notes=(*task.notes, *task.plan_notes(model), *_batch_norm_note(recipe, stages)),
        compression=counts.compression,
        sparsity=counts.sparsity,
        model_compression=counts.model_compression,
        model_sparsity=counts.model_sparsity,
        layers=tuple(
            Layer(
                name=layer.name,
                shape=tuple(layer.shape),
                numel=layer.numel,
                nonzero=layer.nonzero,
                pruned=layer.target is not None,
            )
            for layer in counts.layers
        ),
        epochs=dict(task.epochs),
        seconds=seconds,
        seed=recipe.seed,
        versions={
            "detprune": detprune.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        command=command,
        verified=None,
    )


def _batch_norm_note(recipe: Recipe, stages: Mapping[Stage, StageResult]) -> list[str]:
    images = stages["hard_pruned"].batch_norm_images
    if images is None:  # an earlier version finished the stage, and did not store the number
        images = recipe.batch_norm_images
    if not images:
        return []
    return [
        f"After hard pruning, before it was measured, the batch-norm statistics were estimated anew from "
        f"{images} training images; no weight changed."
    ]
