from .callbacks import HardPruningCheck as HardPruningCheck
from .callbacks import MaskedRetraining as MaskedRetraining
from .constrained import ConstrainedTraining as ConstrainedTraining

__all__: list[str]
