"""What detprune finds under the task ``lanes``; the package itself imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from detprune.task import Adapter
from detprune_ufld.export import export
from detprune_ufld.grid import Grid
from detprune_ufld.listing import list_data, list_models
from detprune_ufld.network.model import LaneNetwork
from detprune_ufld.recipe import LaneRecipe
from detprune_ufld.task import LaneTask


def rebuild(network: Mapping[str, Any]) -> LaneNetwork:
    """The dense network that a file describes."""
    grid, size = Grid(**network["grid"]), (network["size"][0], network["size"][1])
    return LaneNetwork(network["trunk"], grid, size, use_aux=network["auxiliary"])


adapter = Adapter(
    line="Ultra-Fast-Lane-Detection on TuSimple, trained by Lightning",
    recipe=LaneRecipe,
    task=LaneTask,
    models=list_models,
    data_sets=list_data,
    export=export,
    rebuild=rebuild,
)
