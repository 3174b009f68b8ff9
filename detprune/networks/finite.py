"""Checks that a network is finite: no parameter and no buffer may hold NaN or infinity."""

import torch
from torch import Tensor, nn

from detprune.errors import NonFiniteError, listed

_STATISTICS = ("running_mean", "running_var")


def check_finite(model: nn.Module, what: str) -> None:
    """Raise an error if a parameter or a buffer (batch-norm statistics) holds NaN or infinity.

    Infinities in buffers other than statistics are accepted, because attention masks consist of them.

    Args:
        model: the network; it does not change. The check waits for the device once.
        what: name of the network in the error, for example ``"the network after hard pruning"``.

    Raises:
        NonFiniteError: it lists the names, parameters first.
    """
    if bad := without_numbers(model):
        raise NonFiniteError(
            f"{what} holds NaN or infinite values in {listed(bad)}: training has diverged. Lower the "
            "learning rate or rho, or clip gradients, and start from a checkpoint before that"
        )


def without_numbers(model: nn.Module) -> list[str]:
    """Names of a network's tensors that hold NaN or infinity, parameters first; see `check_finite`."""
    numbers: list[tuple[str, Tensor]] = list(model.named_parameters())
    others: list[tuple[str, Tensor]] = []
    for name, buffer in model.named_buffers():
        (numbers if name.rpartition(".")[2] in _STATISTICS else others).append((name, buffer))
    return not_finite(numbers, others)


@torch.no_grad()
def not_finite(
    tensors: list[tuple[str, Tensor]], may_be_infinite: list[tuple[str, Tensor]] | None = None
) -> list[str]:
    """Names of the tensors with NaN or infinities, then those of ``may_be_infinite`` with NaN.

    Tensors of integers and those without data (meta) hold neither.
    """
    names, fine = [], []
    for name, value in tensors:
        if _holds_numbers(value):
            names.append(name)
            fine.append(torch.isfinite(value).all())
    for name, value in may_be_infinite or []:
        if _holds_numbers(value):
            names.append(name)
            fine.append(~torch.isnan(value).any())
    if not names:
        return []
    together = torch.stack([flag.to(fine[0].device) for flag in fine])
    return [name for name, good in zip(names, together.tolist(), strict=True) if not good]


def _holds_numbers(value: Tensor) -> bool:
    return (value.is_floating_point() or value.is_complex()) and not value.is_meta
