"""The adapter for the task ``classification``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detprune.run.adapter import Adapter, Implementation
from detprune_classification.listing import list_data, list_models

if TYPE_CHECKING:
    from torch import nn


def _rebuild(network: Mapping[str, Any]) -> "nn.Module":
    """Build the dense network that a ``.pt`` file describes; only that description is read."""
    from detprune_classification.models import build_model

    return build_model(
        str(network["name"]), int(network["num_classes"]), in_channels=int(network["in_channels"])
    )


def _implement() -> Implementation:
    from detprune_classification.export import export
    from detprune_classification.recipe import ClassificationRecipe
    from detprune_classification.task import ClassificationTask

    return Implementation(ClassificationRecipe, ClassificationTask, {"onnx": export}, _rebuild)


adapter = Adapter(
    line="image classifiers, trained by Lightning",
    requires=("lightning", "torchmetrics", "torchvision"),
    models=list_models,
    data_sets=list_data,
    implement=_implement,
)
