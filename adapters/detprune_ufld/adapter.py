"""What detprune finds under the task ``lanes``; the package itself imports nothing heavy."""

from detprune.task import Adapter
from detprune_ufld.export import export
from detprune_ufld.listing import list_data, list_models
from detprune_ufld.recipe import LaneRecipe
from detprune_ufld.task import LaneTask

adapter = Adapter(
    line="Ultra-Fast-Lane-Detection on TuSimple, trained by Lightning",
    recipe=LaneRecipe,
    task=LaneTask,
    models=list_models,
    data_sets=list_data,
    export=export,
)
