from .callbacks import ConstrainedTraining as ConstrainedTraining
from .callbacks import HardPruningCheck as HardPruningCheck
from .callbacks import MaskedRetraining as MaskedRetraining

__all__: list[str]
