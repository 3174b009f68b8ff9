"""Ultra-Fast-Lane-Detection: lane detectors, pruned inside Lightning's Trainer."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version

from detprune.task import Adapter
from detprune_ufld.data.command import draw_roads
from detprune_ufld.evaluate import evaluate_lanes
from detprune_ufld.export import export
from detprune_ufld.listing import list_data, list_models
from detprune_ufld.measure.command import evaluate_tusimple
from detprune_ufld.recipe import LaneRecipe
from detprune_ufld.task import LaneTask

adapter = Adapter(
    line="Ultra-Fast-Lane-Detection on TuSimple, trained by Lightning",
    recipe=LaneRecipe,
    task=LaneTask,
    models=list_models,
    data_sets=list_data,
    evaluate={"tusimple": evaluate_tusimple, "lanes": evaluate_lanes},
    data={"roads": draw_roads},
    export=export,
)

__all__ = ["LaneRecipe", "LaneTask", "adapter"]
