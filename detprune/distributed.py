"""The few scalars on which the ranks of a distributed run must agree."""

from collections.abc import Sequence

import torch
import torch.distributed as dist


def _active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sums_over_ranks(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each value over all ranks, which all take part in it."""
    if not _active():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def from_rank_zero(values: Sequence[float], device: torch.device) -> list[float]:
    """The values of rank 0 on every rank, so that all ranks decide the same."""
    if not _active():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(tensor, src=0)
    return [float(value) for value in tensor]
