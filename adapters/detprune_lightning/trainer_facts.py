"""What the callbacks ask of a Trainer's fit: its processes, its one optimizer, the checkpoint that it continues."""

from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
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


def check_processes(strategy: Strategy) -> None:
    """Check that what a fit changes is there after it.

    Raises:
        InputError: the fit runs in processes that are started for it alone, as ``ddp_spawn``, ``ddp_fork`` and
            ``ddp_notebook`` do; of what they did, Lightning brings the weights back, and no callback's state.
    """
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise InputError(
            "the strategy trains in processes that are started for the fit alone (ddp_spawn, ddp_fork, ddp_notebook): "
            "masks and multipliers end with them; take ddp, or one device"
        )
