"""``summary.json``: what a run was, what every stage came to, and what is left of every layer."""

import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import detprune
from detprune.run.directory import RunDirectory
from detprune.run.recipe import Recipe
from detprune.run.task import Task
from detprune.summary import Summary


def summarize_run(
    task: Task, recipe: Recipe, run: RunDirectory, model: nn.Module, counts: Summary, command: str
) -> dict[str, Any]:
    """Everything but the proof, the removal of channels and what was gained.

    Args:
        model: the network before channels were removed from it.
        counts: of its weights, before and after.
        command: what reproduces the run.
    """
    stages = run.finished()
    dumped = recipe.model_dump(mode="json")
    seconds = {stage: result["seconds"] for stage, result in stages.items()}
    return {
        "task": recipe.task,
        "name": recipe.name,
        "model": task.model_name,
        "data": task.data_name,
        "method": dumped["method"]["name"],
        "set": dumped["set"]["name"],
        "metric": task.metric,
        **{stage: result["metric"] for stage, result in stages.items()},
        "metrics": {stage: result["metrics"] for stage, result in stages.items()},
        "notes": [*task.notes, *task.plan_notes(model), *_batch_norm_note(recipe, stages)],
        **_counts(counts),
        "epochs": dict(task.epochs),
        "seconds": {
            "dense": seconds["dense"],
            "constrained": seconds["hard_pruned"],
            "retrain": seconds["final"],
            **({"removal": seconds["removed"]} if "removed" in seconds else {}),
            "total": round(sum(seconds.values()), 3),
        },
        "seed": recipe.seed,
        "versions": {
            "detprune": detprune.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "command": command,
    }


def _batch_norm_note(recipe: Recipe, stages: Mapping[str, Any]) -> list[str]:
    # a stage that an earlier version finished does not say how many they were
    images = stages["hard_pruned"].get("batch_norm_images", recipe.batch_norm_images)
    if not images:
        return []
    return [
        f"After hard pruning, before it was measured, the batch-norm statistics were estimated anew from "
        f"{images} training images; no weight moved."
    ]


def _counts(counts: Summary) -> Mapping[str, Any]:
    return {
        "compression": counts.compression,
        "sparsity": counts.sparsity,
        "model_compression": counts.model_compression,
        "model_sparsity": counts.model_sparsity,
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "numel": layer.numel,
                "nonzero": layer.nonzero,
                "pruned": layer.target is not None,
            }
            for layer in counts.layers
        ],
    }
