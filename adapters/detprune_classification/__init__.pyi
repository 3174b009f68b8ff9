from .recipe import ClassificationRecipe as ClassificationRecipe
from .task import ClassificationTask as ClassificationTask

__all__: list[str]
