"""detprune inside Lightning: callbacks for any LightningModule, and the training of our own tasks."""

from detprune.task import Adapter
from detprune_lightning.callbacks import ConstrainedTraining, HardPruningCheck, MaskedRetraining

adapter = Adapter(line="callbacks that prune any LightningModule while Lightning trains it")

__all__ = ["ConstrainedTraining", "HardPruningCheck", "MaskedRetraining", "adapter"]
