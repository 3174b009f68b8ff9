"""Where the outer iterations of a fit end, in optimizer steps that a Trainer plans."""

import math
from dataclasses import dataclass
from itertools import pairwise

from lightning.pytorch.callbacks import GradientAccumulationScheduler
from pydantic import NonNegativeInt, PositiveInt

import lightning as L
from detprune import InputError
from detprune.run.schedule import outer_iterations

_ROUNDING = 1e-6


@dataclass(frozen=True)
class OuterPlan:
    """Outer iterations, spread evenly over the planned steps: their lengths differ by one step at most.

    Attributes:
        steps: optimizer steps of the whole fit.
        updates: outer iterations of a fit of that length.
        earlier: outer iterations that ended before, under the plan of a fit of another length.
        begin: the step after which this plan spreads the others.
    """

    steps: PositiveInt
    updates: PositiveInt
    earlier: NonNegativeInt = 0
    begin: NonNegativeInt = 0

    @classmethod
    def of(cls, trainer: L.Trainer, every: float | None) -> "OuterPlan":
        """The plan of a fit whose outer iterations take ``every`` epochs.

        Raises:
            InputError: the length of the fit is not known.
        """
        total, epochs = _planned_steps(trainer), trainer.max_epochs
        # Lightning estimates -1 steps for a loader without length
        if not 0 < total < math.inf or not epochs or epochs < 0:
            raise InputError(
                "constrained training needs a known length; give the Trainer max_epochs and a loader "
                "whose length is known, or, where it has none (IterableDataset), "
                "limit_train_batches=…, the number of its batches an epoch"
            )
        steps = int(total)
        return cls(steps, outer_iterations(epochs, steps, every))

    def after(self, former: "OuterPlan", done: int) -> "OuterPlan":
        """The plan of a fit that goes on after ``done`` outer iterations of another plan.

        A fit of the same length keeps its plan. In one that became longer or shorter the outer iterations that are
        left have equal lengths, so that none gets all the steps that were added. Where as many have ended as a fit
        of the new length has, others of its usual length follow.
        """
        if (former.steps, former.updates) == (self.steps, self.updates):
            return former
        begin = min(former.end_of(done), self.steps)
        return OuterPlan(self.steps, self.updates, done, begin)

    @property
    def usual(self) -> int:
        """Steps of an outer iteration, rounded."""
        return round(self.steps / self.updates)

    @property
    def last(self) -> int:
        """Outer iterations up to the end of the fit."""
        if self.updates > self.earlier:
            return self.updates
        return self.earlier + max(1, round((self.steps - self.begin) / self.usual))

    def share_at(self, k: int) -> float:
        """Share of the fit at the end of outer iteration ``k``, which counts from 1."""
        return self._steps_at(k) / self.steps

    def end_of(self, k: int) -> int:
        """Whole steps up to the end of outer iteration ``k``."""
        return round(self._steps_at(k))

    def _steps_at(self, k: int) -> float:
        left = self.steps - self.begin
        return self.begin + (k - self.earlier) * left / (self.last - self.earlier)

    def steps_after(self, done: int) -> int:
        """Steps of the outer iteration that follows ``done`` others; after the last one those of the last."""
        k = min(done + 1, self.last)
        return max(1, self.end_of(k) - self.end_of(k - 1))

    def is_kept(self, trainer: L.Trainer, batches_done: int | None = None) -> bool:
        """Whether the fit has had the steps that are planned so far, and its epochs are as long as planned.

        Args:
            trainer: the Trainer, in its present epoch.
            batches_done: batches of that epoch that have been trained on; None: not known, as where a fit is resumed.
        """
        batches, epochs = trainer.num_training_batches, trainer.max_epochs or 0
        if not 0 < batches < math.inf:
            return False
        whole, epoch = _steps_of(trainer, epochs), trainer.current_epoch
        planned = min(whole, trainer.max_steps) if trainer.max_steps > 0 else whole
        before, done = _steps_of(trainer, epoch), trainer.global_step
        if batches_done is None:
            is_in_time = before <= done <= _steps_of(trainer, epoch + 1)
        else:
            is_in_time = done == before + math.ceil(batches_done / _accumulated(trainer, epoch))
        return planned == self.steps and is_in_time

    def steps_now(self, done: int, trainer: L.Trainer, batches_done: int, acted: float) -> int:
        """The steps of the present outer iteration at the pace that is right from here to its end.

        It differs from ``steps_after`` where epochs have other lengths than planned: a loader grows or shrinks, or
        the number of accumulated batches changes.

        Args:
            done: outer iterations that have ended.
            trainer: the Trainer, in its present epoch.
            batches_done: batches of that epoch that have been trained on.
            acted: share of the outer iteration's pull that has acted before.
        """
        epochs, batches = trainer.max_epochs or 1, trainer.num_training_batches
        is_kept = self.is_kept(trainer, batches_done)
        if is_kept or trainer.max_steps > 0 or not 0 < batches < math.inf:
            return self.steps_after(done)
        batches = int(batches)
        accumulated = _accumulated(trainer, trainer.current_epoch)
        an_epoch = math.ceil(batches / accumulated)
        k = min(done + 1, self.last)
        # as if all epochs were like the present one: the whole epochs before the end, and the steps in its own
        end = epochs * min(self.share_at(k), self.end_of(k) / self.steps)
        whole = math.floor(end + _ROUNDING)
        within = max(0, math.ceil((end - whole) * batches / accumulated - _ROUNDING))
        left = whole * an_epoch + min(an_epoch, within)
        left -= trainer.current_epoch * an_epoch + math.ceil(batches_done / accumulated)
        return max(1, round(left / max(_ROUNDING, 1 - acted)))


def _accumulated(trainer: L.Trainer, epoch: int) -> int:
    """Batches for one optimizer step in an epoch."""
    schedule = _schedule(trainer)
    return (
        trainer.accumulate_grad_batches
        if schedule is None
        else schedule.get_accumulate_grad_batches(epoch)
    )


def _steps_of(trainer: L.Trainer, epochs: int) -> int:
    """Optimizer steps of the first epochs, if all have as many batches as the present one."""
    schedule = _schedule(trainer)
    changes = sorted({0, *(() if schedule is None else schedule.scheduling)})
    begins = [min(epoch, epochs) for epoch in (*changes, epochs)]
    return sum(
        (end - begin) * math.ceil(trainer.num_training_batches / _accumulated(trainer, begin))
        for begin, end in pairwise(begins)
    )


def _schedule(trainer: L.Trainer) -> GradientAccumulationScheduler | None:
    found = (c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler))  # type: ignore[attr-defined]
    return next(found, None)


def _planned_steps(trainer: L.Trainer) -> float:
    """Optimizer steps of the whole fit; Lightning's own estimate uses the first epoch's accumulation for all epochs."""
    total = trainer.estimated_stepping_batches
    is_unknown = math.isinf(total) or math.isinf(trainer.num_training_batches)
    if _schedule(trainer) is None or is_unknown or not trainer.max_epochs:
        return total
    steps = _steps_of(trainer, trainer.max_epochs)
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
