"""What the callbacks ask of a Trainer's fit: its one optimizer, and the checkpoint that it continues."""

from torch.optim import Optimizer

import lightning as L
from detprune import InputError

WAY_OUT = (
    "resume from a checkpoint that was written with this callback, or load the weights alone and fit with a new "
    "Trainer without ckpt_path (in a run directory: delete the stage's folder of checkpoints, then --resume)"
)
"""What to do where a checkpoint lacks the state of a callback."""


def checkpoint_of(trainer: L.Trainer) -> str:
    """The checkpoint that the fit continues, in words."""
    return str(trainer.ckpt_path) if trainer.ckpt_path is not None else "this Trainer's earlier fit"


def only_optimizer(trainer: L.Trainer) -> Optimizer:
    """The Trainer's one optimizer."""
    if len(trainer.optimizers) != 1:
        raise InputError(
            f"the LightningModule has {len(trainer.optimizers)} optimizers; pruning needs exactly one"
        )
    return trainer.optimizers[0]
