"""Classification: CIFAR and torchvision networks, digits, CIFAR-10 and image folders."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from detprune.task import Adapter
from detprune_classification.data import list_data
from detprune_classification.models import build_model, list_models
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask


def _rebuild(network: Mapping[str, Any]) -> nn.Module:
    """The dense network that a file describes; nothing else that it says is looked at."""
    return build_model(
        str(network["name"]), int(network["num_classes"]), in_channels=int(network["in_channels"])
    )


adapter = Adapter(
    line="image classifiers, trained by Lightning",
    recipe=ClassificationRecipe,
    task=ClassificationTask,
    models=list_models,
    data_sets=list_data,
    rebuild=_rebuild,
)

__all__ = ["ClassificationRecipe", "ClassificationTask", "adapter"]
