"""The pruner as a Lightning callback: constrained training.

Only public hooks are used. The pruner is made in ``on_fit_start``: there the optimizers exist, and a
checkpoint that is resumed has been read, with the state of this callback.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import FiniteFloat
from torch import Tensor, nn

import lightning as L
from detprune import Budget, InputError, Method, OuterIteration, Pruner, SparsitySet
from detprune.binding.checks import check_choice
from detprune.errors import MissingLossError
from detprune.loggers import logger
from detprune.networks.batch_norm import BATCH_NORM_IMAGES, statistics_layers
from detprune.run.parsing import parse
from detprune.values import check_number, check_whole
from detprune_lightning.batch_norm import TrainingInputs, renew
from detprune_lightning.outer_plan import OuterPlan
from detprune_lightning.trainer_facts import WAY_OUT, check_processes, checkpoint_of, only_optimizer

LOGGER = logger(__name__)

_PLAN, _ACTED = "outer_plan", "acted"


class ConstrainedTraining(L.Callback):
    """Prunes under constraints while a Trainer fits; its state is part of every checkpoint.

    Args:
        method, sparsity_set, budget: as for ``detprune.Pruner``.
        every: epochs per outer iteration; 0.5 updates twice an epoch. Left out, an outer iteration is one
            epoch; in runs of fewer than 20 epochs there are 20 outer iterations
            (``detprune.run.schedule``). Methods with an inner loop of their own (SAS-ADMM) update at
            its end instead.
        network: the module to prune; the whole LightningModule if left out.
        on_update: called with every outer iteration's log entry and the epoch (from 1).
        batch_norm_images: training samples from which batch-norm statistics are estimated anew after hard
            pruning, in the checks and in ``hard_prune``; no weight moves. 0: they stay as they are.

    ``pruner`` is there from ``on_fit_start`` on. After ``fit`` call ``hard_prune()``, which is
    ``pruner.hard_prune()`` and the estimate of the statistics.
    """

    def __init__(
        self,
        method: Method,
        sparsity_set: SparsitySet | None = None,
        budget: Budget | None = None,
        *,
        every: float | None = None,
        network: nn.Module | None = None,
        on_update: Callable[[OuterIteration, int], None] | None = None,
        batch_norm_images: int = BATCH_NORM_IMAGES,
    ) -> None:
        self._method, self._sparsity_set, self._budget = check_choice(method, sparsity_set, budget)
        self._method.check_set(self._sparsity_set)
        if every is not None:
            check_number(
                "every", every, "a number of epochs > 0, or None", lambda epochs: epochs > 0
            )
        check_whole("batch_norm_images", batch_norm_images, "a number of training samples, or 0", 0)
        self._every, self._network, self._on_update = every, network, on_update
        self._pruner: Pruner | None = None
        self._saved: dict[str, Any] | None = None
        self._continues = False
        self._plan = OuterPlan(1, 1)
        self._former_plan: Any = None
        self._last_step = 0
        self._acted = 0.0
        self._batch_norm_images = batch_norm_images
        self._inputs: TrainingInputs | None = None

    @property
    def pruner(self) -> Pruner:
        """The pruner of the current or last fit."""
        if self._pruner is None:
            raise InputError("there is no pruner before fit; it is made when training starts")
        return self._pruner

    def hard_prune(self) -> None:
        """Hard-prune the network, and estimate its batch-norm statistics anew."""
        self.pruner.hard_prune()
        renew(self.pruner.model, self._inputs)

    def hard_pruned_copy(self) -> nn.Module:
        """A copy of the network as ``hard_prune`` would leave it now; the network itself does not change."""
        network = self.pruner.hard_pruned_copy()
        renew(network, self._inputs)
        return network

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the pruner for the optimizer, and load a checkpoint's state if there is one."""
        check_processes(trainer.strategy)
        plan = self._plan = OuterPlan.of(trainer, self._every)
        epochs = trainer.max_epochs or 0
        if self._every is not None and round(epochs / self._every) > plan.steps:
            LOGGER.warning(
                "every is %g epochs, in which there is no optimizer step: outer iterations are %d, of a step each",
                *(self._every, plan.updates),
            )
        self._pruner = Pruner(
            self._network if self._network is not None else pl_module,
            only_optimizer(trainer),
            self._method,
            self._sparsity_set,
            self._budget,
            steps_per_update=self._steps_after(0),
            updates=plan.updates,
        )
        self._continues, self._acted = self._saved is not None, 0.0
        if self._saved is not None:
            try:
                self._pruner.load_state_dict(self._saved)
            except InputError as error:
                raise InputError(f"{checkpoint_of(trainer)}: {error}; {WAY_OUT}") from error
            self._saved = None
            done = len(self._pruner.history)
            if self._former_plan is not None and not self._method.has_inner_loop:
                former = parse(OuterPlan, self._former_plan, checkpoint_of(trainer), WAY_OUT)
                acted = self._former_plan.get(_ACTED, 0.0)
                self._acted = parse(FiniteFloat, acted, checkpoint_of(trainer), WAY_OUT)
                self._plan = plan.after(former, done)
            self._pruner.steps_per_update = self._steps_after(done)
        self._inputs = None
        if self._batch_norm_images and statistics_layers(self._pruner.model):
            try:
                self._inputs = TrainingInputs(trainer, self._batch_norm_images)
            except InputError as error:
                LOGGER.warning(
                    "batch norm keeps the statistics of constrained training after hard pruning: %s",
                    error,
                )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that a training that is resumed has the state of its pruner.

        Raises:
            InputError: training continues from a checkpoint that holds no state of the pruner.
        """
        if trainer.global_step and not self._continues:
            raise InputError(
                f"training goes on at step {trainer.global_step}, but {checkpoint_of(trainer)} holds no state of "
                f"ConstrainedTraining, whose pruning would start from zero; {WAY_OUT}"
            )
        self._last_step = trainer.global_step  # restored by now, in a fit that is resumed
        # an epoch that is resumed in its middle has no start
        if not self._plan.is_kept(trainer):
            self._set_pace(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the pruner the steps of its outer iteration, as this epoch's loader gives them."""
        self._set_pace(trainer, 0)

    def _set_pace(self, trainer: L.Trainer, batches_done: int) -> None:
        if not self._method.has_inner_loop:
            done = len(self.pruner.history)
            steps = self._plan.steps_now(done, trainer, batches_done, self._acted)
            self.pruner.steps_per_update = steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Pass the loss to the pruner; end the outer iteration when its steps are done."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):  # a module may skip a batch
            # Lightning divides the loss by the number of accumulated batches
            self.pruner.observe(loss * trainer.accumulate_grad_batches)
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        self._acted += 1 / (self.pruner.steps_per_update or 1)
        if (
            self.pruner.due
            if self._method.has_inner_loop
            else self._at_boundary(trainer, batch_idx)
        ):
            entry = self._update()
            self._acted = 0.0
            self._set_pace(trainer, batch_idx + 1)
            for logger in trainer.loggers:
                logger.log_metrics(_curves(entry), step=self._last_step)
            if self._on_update is not None:
                self._on_update(entry, trainer.current_epoch + 1)

    def _update(self) -> OuterIteration:
        try:
            return self.pruner.update()
        except MissingLossError as error:
            raise MissingLossError(
                f"{type(self._method).__name__} compares the task loss of outer iterations, but training_step "
                "returned none in this one; return the loss of a batch, not None, or take ADMM, which needs none"
            ) from error

    def _at_boundary(self, trainer: L.Trainer, batch_idx: int) -> bool:
        """Whether training has come to the end of the current outer iteration.

        The ends are spread evenly over all planned steps, so that the last outer iteration ends with the
        last step even where an epoch has no whole number of them. If epochs turn out to have more or fewer
        steps than planned, as with a loader that shrinks, progress is measured as a share of the epochs, so that
        the ends stay in place.
        """
        k = len(self.pruner.history) + 1
        if self._plan.is_kept(trainer, batch_idx + 1):
            return trainer.global_step >= self._plan.end_of(k)
        done = (trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches) / (
            trainer.max_epochs or 1
        )
        if trainer.max_steps > 0:
            done = max(done, trainer.global_step / trainer.max_steps)
        # count whole planned steps; the second test is for steps that are longer than planned
        steps = math.floor(done * self._plan.steps + 1e-6)
        return steps >= self._plan.end_of(k) or done + 1e-9 >= self._plan.share_at(k)

    def _steps_after(self, done: int) -> int:
        """Planned steps of the outer iteration that follows ``done`` others, or of one of the method's own."""
        return self._plan.usual if self._method.has_inner_loop else self._plan.steps_after(done)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the hooks off; the pruner stays."""
        self.pruner.detach()

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state, and the plan of its outer iterations."""
        if self._pruner is None:
            return {}
        return {
            **self._pruner.state_dict(),
            _PLAN: {**dataclasses.asdict(self._plan), _ACTED: self._acted},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until the pruner is made."""
        saved = dict(state_dict)
        self._former_plan = saved.pop(_PLAN, None)  # earlier versions kept none
        self._saved = saved or None


def _curves(entry: OuterIteration) -> dict[str, float]:
    values = vars(entry).items()
    return {f"pruning/{name}": float(value) for name, value in values if value is not None}
