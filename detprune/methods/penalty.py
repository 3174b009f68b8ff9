"""The penalty of each step, in one pass over memory and without temporaries.

Only the proximal map of half-precision weights needs a temporary, of one tensor at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# 4 MiB of float32: gradient, weight and anchor of a chunk stay in the last-level cache between the two
# additions, so that memory is read and written once; smaller chunks lose more to launching operations.
_CHUNK = 1 << 20


@torch.no_grad()
def add_pull(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], coefficients: Sequence[float]
) -> None:
    """weight.grad ← weight.grad + c(weight − anchor), in place; tensors without gradient are skipped.

    Args:
        weights: the parameters.
        anchors: A = Z − Λ/ρ, one of each parameter's shape.
        coefficients: c of each tensor: ρ, or the coefficient that ``momentum.py`` works out for a pull.
    """
    active = [
        (weight.grad, weight, anchor, c)
        for weight, anchor, c in zip(weights, anchors, coefficients, strict=True)
        if weight.grad is not None
    ]
    if active and active[0][1].device.type != "cpu":
        for c in {entry[3] for entry in active}:
            grads = [grad for grad, _, _, own in active if own == c]
            torch._foreach_add_(grads, [w for _, w, _, own in active if own == c], alpha=c)
            torch._foreach_sub_(grads, [a for _, _, a, own in active if own == c], alpha=c)
        return
    for grad, weight, anchor, c in active:
        if grad.numel() <= _CHUNK:
            grad.add_(weight, alpha=c).sub_(anchor, alpha=c)
            continue
        chunks = (flat.split(_CHUNK) for flat in _flat_views(grad, weight, anchor))
        for g, w, a in zip(*chunks, strict=True):
            g.add_(w, alpha=c).sub_(a, alpha=c)


@torch.no_grad()
def pull_towards(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], shares: Sequence[float]
) -> None:
    """weight ← weight + share·(anchor − weight), in place, for tensors that are trained.

    Args:
        weights: the parameters.
        anchors: A = Z − Λ/ρ, one of each parameter's shape, in float32 or wider.
        shares: share of each tensor's gap, from 0 to 1.
    """
    active = [
        (weight, anchor, share)
        for weight, anchor, share in zip(weights, anchors, shares, strict=True)
        if weight.requires_grad and share
    ]
    same = [entry for entry in active if entry[0].dtype == entry[1].dtype]
    if same and same[0][0].device.type != "cpu":
        for share in {entry[2] for entry in same}:
            values = [weight for weight, _, own in same if own == share]
            torch._foreach_lerp_(values, [a for _, a, own in same if own == share], share)
    else:
        for weight, anchor, share in same:
            weight.lerp_(anchor, share)
    for weight, anchor, share in active:
        if (
            weight.dtype != anchor.dtype
        ):  # half precision: computed in the anchor's dtype, rounded once
            weight.copy_(torch.lerp(weight.to(anchor.dtype), anchor, share))


def _flat_views(*tensors: Tensor) -> list[Tensor]:
    """One-dimensional views in memory order, or the tensors as they are where layouts differ."""
    first = tensors[0]
    for memory_format in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d):
        if all(_has_layout(tensor, memory_format) for tensor in tensors):
            return [tensor.detach().as_strided((first.numel(),), (1,)) for tensor in tensors]
    return [tensor.detach() for tensor in tensors]


def _has_layout(tensor: Tensor, memory_format: torch.memory_format) -> bool:
    dims = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(memory_format, tensor.dim())
    return tensor.dim() == dims and tensor.is_contiguous(memory_format=memory_format)
