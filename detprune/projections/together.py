"""Selection in many small tensors at once, each for its own count, for accelerators.

The selection of ``selection.py`` waits for the device several times per tensor. That wait is negligible for a
large tensor, but dominates for a small one. Here one sort ranks all tensors, without any wait.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detprune.projections.selection import largest, magnitude_bits

_SMALL = 1 << 20
_TOGETHER = 1 << 21
"""Entries that are sorted at once: with keys, owners and indices, some 70 bytes each, 140 MiB in all."""


def largest_of_each(values: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Return the boolean supports of the ``counts[i]`` largest magnitudes of every ``values[i]``.

    Args:
        values: tensors of any shapes and floating dtypes.
        counts: number of entries to keep of each tensor.

    Returns:
        For each tensor, the same as ``largest([value], count)[0]``.
    """
    masks: list[Tensor | None] = [None] * len(values)
    batch: list[int] = []

    def finish() -> None:
        chosen = _sorted_together([values[i] for i in batch], [counts[i] for i in batch])
        for i, mask in zip(batch, chosen, strict=True):
            masks[i] = mask
        batch.clear()

    for index, (value, count) in enumerate(zip(values, counts, strict=True)):
        if value.numel() > _SMALL or value.element_size() > 4 or not 0 < count < value.numel():
            masks[index] = largest([value], count)[0]
            continue
        full = sum(values[i].numel() for i in batch) + value.numel() > _TOGETHER
        if batch and (full or values[batch[0]].device != value.device):
            finish()
        batch.append(index)
    if batch:
        finish()
    return [mask for mask in masks if mask is not None]


def _sorted_together(values: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Sort by (tensor, falling magnitude, index): the first ``counts[i]`` of tensor i are its support."""
    device, sizes = values[0].device, [value.numel() for value in values]
    total = sum(sizes)
    length = torch.tensor(sizes, device=device)
    owner = torch.repeat_interleave(
        torch.arange(len(sizes), device=device), length, output_size=total
    )
    bits = torch.cat([magnitude_bits(value).long() for value in values])
    # bit patterns of magnitudes are below 2³¹, so the owner ranks first in the key
    order = torch.sort((owner + 1 << 31) - bits, stable=True).indices
    # position p of the sorted entries still belongs to owner[p], for the tensors keep their places
    rank = torch.arange(total, device=device) - (length.cumsum(0) - length)[owner]
    chosen = torch.empty(total, dtype=torch.bool, device=device)
    chosen[order] = rank < torch.tensor(counts, device=device)[owner]
    pieces = chosen.split(sizes)
    return [piece.view(value.shape) for piece, value in zip(pieces, values, strict=True)]
