"""Measures a checkpoint of a recipe's network outside a run, for ``detprune evaluate``."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from detprune.task import Task


def load_for_evaluation(task: Task, checkpoint: Path | None) -> nn.Module:
    """The task's network with a checkpoint's weights, or with the recipe's own."""
    model = task.build_model()
    if checkpoint is not None:
        task.load_weights(model, checkpoint)
    return model


def evaluation(task: Task, model: nn.Module) -> dict[str, Any]:
    """Metrics of a network on the task's test data, and how many of its weights are zero."""
    metrics = dict(task.evaluate(model))
    numel = sum(p.numel() for p in model.parameters())
    nonzero = sum(int(torch.count_nonzero(p)) for p in model.parameters())
    return {
        "model": task.model_name,
        "data": task.data_name,
        "metric": task.metric,
        "value": metrics[task.metric],
        "metrics": metrics,
        "model_sparsity": 1 - nonzero / numel,
        "model_compression": numel / nonzero if nonzero else None,
    }
