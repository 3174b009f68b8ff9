"""Norms and inner products of the pruned tensors, added up in float64.

On an accelerator the scalars stay there until `as_floats` fetches many at once: waiting for the device once per
tensor costs more than all computations of an outer iteration.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Scalar = float | Tensor
"""A number, or a zero-dimensional tensor on an accelerator."""


def norm(value: Tensor) -> Scalar:
    """l2 norm, added up in float64."""
    if _adds_in_chunks(value):
        squared = _chunked_dot(value, value)
        if _TINY < squared < math.inf:  # outside, squares in float32 may have under- or overflowed
            return math.sqrt(squared)
    return _scalar(torch.linalg.vector_norm(value, dtype=torch.float64))


def inner(a: Tensor, b: Tensor) -> Scalar:
    """⟨a, b⟩, added up in float64."""
    if _adds_in_chunks(a) and _adds_in_chunks(b):
        return _chunked_dot(a, b)
    return _scalar((a * b).sum(dtype=torch.float64))


def as_floats(scalars: Sequence[Scalar]) -> list[float]:
    """Return all scalars as numbers, with a single wait for the device."""
    tensors = [scalar for scalar in scalars if isinstance(scalar, Tensor)]
    gathered = [
        tensor.to(tensors[0].device) for tensor in tensors
    ]  # a model may be on several devices
    fetched = iter(torch.stack(gathered).tolist() if gathered else ())
    return [next(fetched) if isinstance(scalar, Tensor) else scalar for scalar in scalars]


def root_sum_square(norms: Sequence[float]) -> float:
    """Norm of several tensors together, from the norm of each."""
    return math.sqrt(sum(value * value for value in norms))


def relative(part: float, whole: float) -> float | None:
    """part / whole, None where the whole is zero."""
    return part / whole if whole else None


# BLAS adds up a chunk in float32, in many partial sums; converting all to float64 takes four times as long.
_DOT_CHUNK = 1 << 16
_TINY = 1e-20


def _chunked_dot(a: Tensor, b: Tensor) -> float:
    chunks = zip(a.view(-1).split(_DOT_CHUNK), b.view(-1).split(_DOT_CHUNK), strict=True)
    return math.fsum([float(torch.dot(x, y)) for x, y in chunks])


def _adds_in_chunks(value: Tensor) -> bool:
    on_cpu = value.device.type == "cpu" and value.dtype == torch.float32
    return on_cpu and value.is_contiguous() and not value.requires_grad


def _scalar(value: Tensor) -> Scalar:
    return float(value) if value.device.type == "cpu" else value
