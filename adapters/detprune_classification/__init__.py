"""Classification: CIFAR and torchvision networks, digits, CIFAR-10 and image folders."""

from detprune.task import Adapter
from detprune_classification.data import list_data
from detprune_classification.models import build_model, list_models
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask

adapter = Adapter(
    line="image classifiers, trained by Lightning",
    recipe=ClassificationRecipe,
    task=ClassificationTask,
    models=list_models,
    data_sets=list_data,
    rebuild=lambda network: build_model(**network),
)

__all__ = ["ClassificationRecipe", "ClassificationTask", "adapter"]
