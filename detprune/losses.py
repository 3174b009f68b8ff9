"""The mean task loss of an outer iteration, gathered without waiting for the device."""

import torch
from torch import Tensor

from detprune.distributed import mean_over_ranks


class MeanLoss:
    """Sum and number of the losses seen since the last `reset`; both are part of a pruner's state."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, loss: Tensor | float) -> None:
        """Note a batch's loss; a tensor stays on its device."""
        value = loss.detach().double() if isinstance(loss, Tensor) else float(loss)
        self.total = self.total + value
        self.count += 1

    def over_ranks(self, device: torch.device) -> float | None:
        """The mean over all ranks; None where nothing was seen."""
        if self.count == 0:
            return None
        return mean_over_ranks(float(self.total), self.count, device)
