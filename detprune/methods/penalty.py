"""The per-step penalty: one pass over what it reads and writes, without temporaries.

Only the proximal map of half-precision weights takes one, of one tensor at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# 4 MiB of float32: gradient, weight and anchor of a chunk stay in the last-level cache between the two
# additions, so that memory is read and written once; smaller chunks lose more to launching operations.
_CHUNK = 1 << 20


@torch.no_grad()
def add_pull(weights: Sequence[Tensor], anchors: Sequence[Tensor], rho: float) -> None:
    """weight.grad ← weight.grad + ρ(weight − anchor), in place; tensors without gradient are skipped.

    Args:
        weights: the parameters.
        anchors: A = Z − Λ/ρ, one of each parameter's shape.
        rho: ρ.
    """
    if weights and weights[0].device.type != "cpu":
        active = [
            (w.grad, w, a) for w, a in zip(weights, anchors, strict=True) if w.grad is not None
        ]
        if active:
            grads, values, pulls = (list(tensors) for tensors in zip(*active, strict=True))
            torch._foreach_add_(grads, values, alpha=rho)
            torch._foreach_sub_(grads, pulls, alpha=rho)
        return
    for weight, anchor in zip(weights, anchors, strict=True):
        grad = weight.grad
        if grad is None:
            continue
        if grad.numel() <= _CHUNK:
            grad.add_(weight, alpha=rho).sub_(anchor, alpha=rho)
            continue
        chunks = (flat.split(_CHUNK) for flat in _flat_views(grad, weight, anchor))
        for g, w, a in zip(*chunks, strict=True):
            g.add_(w, alpha=rho).sub_(a, alpha=rho)


@torch.no_grad()
def pull_towards(weights: Sequence[Tensor], anchors: Sequence[Tensor], share: float) -> None:
    """weight ← weight + share·(anchor − weight), in place, for tensors that are trained.

    Args:
        weights: the parameters.
        anchors: A = Z − Λ/ρ, one of each parameter's shape, in float32 or wider.
        share: from 0 to 1.
    """
    active = [(w, a) for w, a in zip(weights, anchors, strict=True) if w.requires_grad]
    same = [(w, a) for w, a in active if w.dtype == a.dtype]
    if same and same[0][0].device.type != "cpu":
        values, pulls = (list(tensors) for tensors in zip(*same, strict=True))
        torch._foreach_lerp_(values, pulls, share)
    else:
        for weight, anchor in same:
            weight.lerp_(anchor, share)
    for weight, anchor in active:
        if weight.dtype != anchor.dtype:  # half precision: rounded once
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
