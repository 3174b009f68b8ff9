"""The mean task loss of an outer iteration, gathered without waiting for the device."""

import torch
from torch import Tensor

from detprune.distributed import sums_over_ranks
from detprune.errors import InputError
from detprune.loggers import logger

LOGGER = logger(__name__)

_KINDS = ("the mean of observe(loss)", "that of update(task_loss=…)")


class MeanLoss:
    """Sum and number of the losses since the last `reset`; both are part of a pruner's state."""

    def __init__(self) -> None:
        self.reset()
        self._was_measured: bool | None = None
        self._told = False

    def reset(self) -> None:
        """Forget all losses."""
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, loss: Tensor | float) -> None:
        """Add a batch's loss; a tensor stays on its device.

        Raises:
            InputError: more than one number, or none.
        """
        self.total = self.total + one_number(loss)
        self.count += 1

    def over_ranks(self, measured: float | None, device: torch.device) -> float | None:
        """The task loss on which all ranks agree; every rank takes part, also one that has no loss.

        Args:
            measured: a loss measured elsewhere, which may be known on some ranks only.
            device: the device of the exchange.

        Returns:
            The mean of the measured losses, or of all observed ones if no rank measured any; None without a loss.
        """
        own = (0.0, 0) if measured is None else (measured, 1)
        total, count, observed, batches = sums_over_ranks(
            [*own, float(self.total), self.count], device
        )
        if count:
            return total / count
        return observed / batches if batches else None

    def tell_other_kind(self, method: str, measured: bool) -> None:
        """Warn once if a measured loss follows an observed one, or the other way round.

        Args:
            method: name of the method, which compares the two.
            measured: whether the loss of this outer iteration was measured elsewhere.
        """
        if self._was_measured not in (None, measured) and not self._told:
            self._told = True
            LOGGER.warning(
                "%s compares the task loss of an outer iteration with that of the one before, but one is %s and the "
                "other %s. Give update(task_loss=…) in every outer iteration, or in none",
                method,
                *(_KINDS[bool(kind)] for kind in (self._was_measured, measured)),
            )
        self._was_measured = measured


def as_number(loss: Tensor | float) -> float:
    """A loss as a number; this waits for its device."""
    return float(one_number(loss))


def one_number(loss: Tensor | float) -> Tensor | float:
    """A loss in double precision; a tensor stays on its device.

    Raises:
        InputError: more than one number, or none.
    """
    if not isinstance(loss, Tensor):
        try:
            return float(loss)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the task loss is {loss!r:.60}, a {type(loss).__name__}; pass a number, or a tensor with one "
                "element"
            ) from error
    if loss.numel() != 1:
        raise InputError(
            f"the task loss has shape {tuple(loss.shape)}, it must be one number: reduce it first, loss.mean()"
        )
    if loss.is_complex() or loss.is_meta:
        raise InputError(f"the task loss is of {loss.dtype} on {loss.device}; pass a real number")
    return loss.detach().reshape(()).double()
