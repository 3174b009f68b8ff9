"""Checks that a network holds numbers: no parameter and no buffer may be NaN or infinite."""

import torch
from torch import Tensor, nn

from detprune.errors import NonFiniteError

_NAMED = 5  # names in an error; a diverged network has hundreds of them


def check_finite(model: nn.Module, what: str) -> None:
    """Raise where a parameter or a buffer (batch-norm statistics) is NaN or infinite.

    Args:
        model: the network; left alone. It waits for the device once.
        what: what the network is, as the error is to call it: ``"the network after hard pruning"``.

    Raises:
        NonFiniteError: with the names, parameters first.
    """
    bad = not_finite([*model.named_parameters(), *model.named_buffers()])
    if bad:
        raise NonFiniteError(
            f"{what} holds NaN or infinite values in {listed(bad)}: training has diverged. Lower the "
            "learning rate or rho, or clip gradients, and start from a checkpoint before that"
        )


@torch.no_grad()
def not_finite(tensors: list[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinities; those of integers and without data never do."""
    of_numbers = [
        (name, value)
        for name, value in tensors
        if (value.is_floating_point() or value.is_complex()) and not value.is_meta
    ]
    if not of_numbers:
        return []
    device = of_numbers[0][1].device
    finite = torch.stack([torch.isfinite(value).all().to(device) for _, value in of_numbers])
    return [name for (name, _), fine in zip(of_numbers, finite.tolist(), strict=True) if not fine]


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
