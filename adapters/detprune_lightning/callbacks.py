"""The callbacks beside constrained training: its check, and masked retraining."""

from collections.abc import Callable
from typing import Any

from torch import nn

import lightning as L
from detprune import InputError, Pruner
from detprune.binding.checks import check_kind
from detprune.values import check_whole
from detprune_lightning.constrained import ConstrainedTraining
from detprune_lightning.trainer_facts import WAY_OUT, check_processes, checkpoint_of, only_optimizer


class HardPruningCheck(L.Callback):
    """Measures a hard-pruned copy every few epochs, and can stop training.

    The copy's batch-norm statistics are estimated anew, as ``training.hard_prune()`` will do.

    Args:
        training: the callback whose pruner is checked.
        evaluate: measures a network.
        every: epochs between checks.
        stop_at: training stops once the measure reaches this.
        on_check: called with the measure and the epoch (from 1).
    """

    def __init__(
        self,
        training: ConstrainedTraining,
        evaluate: Callable[[nn.Module], float],
        *,
        every: int = 1,
        stop_at: float | None = None,
        on_check: Callable[[float, int], None] | None = None,
    ) -> None:
        check_kind(training, ConstrainedTraining, "training", "ConstrainedTraining(...)")
        check_whole("every", every, "a whole number of epochs, 1 or more")
        self._training, self._evaluate = training, evaluate
        self._every, self._stop_at, self._on_check = every, stop_at, on_check
        self._stopped: Any = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep a run stopped that had stopped before it was killed.

        Raises:
            InputError: the checkpoint that is resumed does not say whether it had.
        """
        if not isinstance(self._stopped, bool):
            raise InputError(
                f"{checkpoint_of(trainer)}: HardPruningCheck's state says stopped: {self._stopped!r}, allowed are "
                f"true and false; {WAY_OUT}"
            )
        trainer.should_stop = trainer.should_stop or self._stopped

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure a hard-pruned copy, and stop training if the measure reaches ``stop_at``."""
        epoch = trainer.current_epoch + 1
        if epoch % self._every:
            return
        value = self._evaluate(self._training.hard_pruned_copy())
        if self._on_check is not None:
            self._on_check(value, epoch)
        if self._stop_at is not None and value >= self._stop_at:
            self._stopped = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Whether training was stopped."""
        return {"stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore whether training was stopped."""
        self._stopped = state_dict.get("stopped")


class MaskedRetraining(L.Callback):
    """Keeps a hard-pruned network's masked weights at exactly zero while a Trainer fits it."""

    def __init__(self, pruner: Pruner) -> None:
        if check_kind(pruner, Pruner, "pruner", "ConstrainedTraining(...).pruner").masks is None:
            raise InputError("masked retraining needs masks; call pruner.hard_prune() first")
        self._pruner = pruner

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach the pruner to the new optimizer."""
        check_processes(trainer.strategy)
        self._pruner.attach(only_optimizer(trainer))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the hooks off; the pruner stays."""
        self._pruner.detach()
