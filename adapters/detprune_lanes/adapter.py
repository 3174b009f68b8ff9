"""The adapter for the task ``lanes``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detprune.run.adapter import Adapter, Implementation
from detprune_lanes.listing import list_data, list_models

if TYPE_CHECKING:
    from detprune_lanes.network.model import LaneNetwork


def _rebuild(network: Mapping[str, Any]) -> "LaneNetwork":
    """Build the dense network that a ``.pt`` file describes."""
    from detprune_lanes.grid import Grid
    from detprune_lanes.network.model import LaneNetwork

    grid, size = Grid(**network["grid"]), (network["size"][0], network["size"][1])
    return LaneNetwork(network["trunk"], grid, size, use_aux=network["auxiliary"])


def _implement() -> Implementation:
    from detprune_lanes.export import export
    from detprune_lanes.recipe import LaneRecipe
    from detprune_lanes.task import LaneTask

    return Implementation(LaneRecipe, LaneTask, {"onnx": export}, _rebuild)


adapter = Adapter(
    line="Ultra-Fast-Lane-Detection on TuSimple, trained by Lightning",
    requires=("lightning", "torchvision", "cv2", "albumentations"),
    models=list_models,
    data_sets=list_data,
    implement=_implement,
)
