"""Exact selection of the largest entries, the one primitive under every projection.

The Euclidean projection argmin ‖Z − V‖ onto "at most l nonzeros" keeps the l entries of largest magnitude,
and that onto "at most l nonzero groups" keeps the l groups of largest l2 norm. Ties go to the lowest
index (row-major; earlier tensors first), so that exactly l survive and the support depends neither
on the device nor on the memory format.

How it works: magnitudes are compared as integers, because the bit patterns of non-negative IEEE numbers are
ordered like the numbers (NaN above infinity). A sample brackets the l-th largest value between two
bounds (the idea of Floyd & Rivest, "Expected time bounds for selection", CACM 1975); one pass
counts what lies above the bracket and collects what lies inside; the l-th largest is then selected
among these few. A bracket that misses costs a full selection, never a wrong answer.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_INTEGER_OF_WIDTH = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Three buffers of this many elements stay in the L2 cache of current processors.
_CPU_CHUNK = 1 << 18
# Accelerators pay per launch, and memory for the temporaries: 64 Mi elements is 256 MiB of float32.
_ACCELERATOR_CHUNK = 1 << 26
_SAMPLE = 1 << 19


class Threshold(NamedTuple):
    """The l-th largest magnitude, and how many of the entries equal to it are kept."""

    bits: int
    """Bit pattern of the magnitude, as an integer of the dtype's width."""
    ties_kept: int
    """How many of the entries equal to it belong to the support."""
    ties: int
    """How many entries are equal to it."""


def largest(values: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return the boolean supports of the ``count`` largest magnitudes, jointly over all tensors.

    They are the supports of argmin ‖Z − values‖ over all Z with at most ``count`` nonzeros. Of equal
    magnitudes the entries of lowest index are kept, earlier tensors first.

    Args:
        values: tensors of any shapes, one floating dtype and one device; ranked together.
        count: number of entries to keep in all, 0 ≤ count ≤ total number of entries.

    Returns:
        One boolean tensor per input, of its shape; ``count`` entries are True in all.
    """
    total = sum(value.numel() for value in values)
    if count <= 0 or count >= total:
        return [torch.full_like(value, count > 0, dtype=torch.bool) for value in values]
    threshold = find_threshold(values, count)
    masks = [_at_least(value, threshold.bits) for value in values]
    surplus = threshold.ties - threshold.ties_kept
    for value, mask in zip(reversed(values), reversed(masks), strict=True):
        if surplus == 0:
            break
        surplus -= _drop_last_ties(value, mask, threshold.bits, surplus)
    return masks


def find_threshold(values: Sequence[Tensor], count: int) -> Threshold:
    """Find the ``count``-th largest magnitude over all ``values`` (0 < count < total)."""
    flats = [value.detach().reshape(-1) for value in values]
    total = sum(flat.numel() for flat in flats)
    if total > 4 * _SAMPLE:
        low, high = _bracket(flats, total, count)
        found = _select_between(flats, count, low, high)
        if found is not None:
            return found
    everything = _select_between(flats, count, 0, torch.iinfo(_integer_dtype(flats[0])).max)
    if everything is None:
        raise AssertionError("every bit pattern of a magnitude lies between zero and the maximum")
    return everything


def _integer_dtype(value: Tensor) -> torch.dtype:
    return _INTEGER_OF_WIDTH[value.element_size()]


def _bits(magnitude: Tensor) -> Tensor:
    return magnitude.view(_integer_dtype(magnitude))


def magnitude_bits(value: Tensor) -> Tensor:
    """Bit patterns of |value|, row-major: non-negative integers in the order of the magnitudes."""
    return _bits(value.detach().reshape(-1).abs())


def _chunk_size(value: Tensor) -> int:
    return _CPU_CHUNK if value.device.type == "cpu" else _ACCELERATOR_CHUNK


def _magnitude_bits(flats: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the bit patterns of |values| chunk by chunk, in one buffer that is reused."""
    size = _chunk_size(flats[0])
    buffer = flats[0].new_empty(min(size, max(flat.numel() for flat in flats)))
    for flat in flats:
        for chunk in flat.split(size):
            yield _bits(torch.abs(chunk, out=buffer[: chunk.numel()]))


def _bracket(flats: Sequence[Tensor], total: int, count: int) -> tuple[int, int]:
    """Bounds between which the ``count``-th largest lies, except with a probability of about 1e-8."""
    stride = max(1, total // _SAMPLE) | 1  # odd, so that the sample is not in step with channels
    sample = torch.cat([flat[::stride] for flat in flats]).abs()
    size = sample.numel()
    rank = size * (1 - count / total)
    margin = 6 * math.sqrt(size * (count / total) * (1 - count / total)) + 2
    low = max(0, math.floor(rank - margin))
    high = min(size - 1, math.ceil(rank + margin))
    ordered = _order_statistics(_bits(sample), (low, high))
    return (0 if low == 0 else ordered[0]), ordered[1]


def _order_statistics(values: Tensor, ranks: tuple[int, int]) -> tuple[int, int]:
    if values.device.type == "cpu":
        partitioned = np.partition(values.numpy(), ranks)
        return int(partitioned[ranks[0]]), int(partitioned[ranks[1]])
    ordered = values.sort().values
    return int(ordered[ranks[0]]), int(ordered[ranks[1]])


def _select_between(flats: Sequence[Tensor], count: int, low: int, high: int) -> Threshold | None:
    """Select among the magnitudes in [low, high]; None if the answer does not lie there."""
    above = 0
    candidates = []
    for bits in _magnitude_bits(flats):
        if bits.device.type == "cpu":  # numpy compares and scans several times faster than torch
            array = bits.numpy()
            over = array > high
            above += int(np.count_nonzero(over))
            inside = np.flatnonzero((array >= low) ^ over)
            candidates.append(torch.from_numpy(array[inside]))
        else:
            above += int((bits > high).sum())
            candidates.append(bits[(bits >= low) & (bits <= high)])
    inside_bits = torch.cat(candidates)
    wanted = count - above
    if not 0 < wanted <= inside_bits.numel():
        return None
    rank = inside_bits.numel() - wanted
    threshold = _order_statistics(inside_bits, (rank, rank))[0]
    greater = int(torch.count_nonzero(inside_bits > threshold))
    ties = int(torch.count_nonzero(inside_bits == threshold))
    return Threshold(threshold, wanted - greater, ties)


def _at_least(value: Tensor, bits: int) -> Tensor:
    mask = empty(value.shape, torch.bool, value.device)
    flat, size = mask.view(-1), _chunk_size(value)
    chunks = _magnitude_bits([value.detach().reshape(-1)])
    for out, chunk in zip(flat.split(size), chunks, strict=True):
        if mask.device.type == "cpu":
            np.greater_equal(chunk.numpy(), bits, out=out.numpy())
        else:
            torch.ge(chunk, bits, out=out)
    return mask


def _drop_last_ties(value: Tensor, mask: Tensor, bits: int, surplus: int) -> int:
    """Clear up to ``surplus`` entries equal to the threshold, highest index first; return their number.

    Ties are common: of some ten million float32 weights, two are often equal.
    """
    dropped = 0
    size = _chunk_size(value)
    chunks = value.detach().reshape(-1).split(size)
    for number in reversed(range(len(chunks))):
        equal = _bits(chunks[number].abs()) == bits
        tied = _nonzero(equal)
        last = tied[max(0, len(tied) - (surplus - dropped)) :]
        mask.view(-1)[last + number * size] = False
        dropped += len(last)
        if dropped == surplus:
            break
    return dropped


def _nonzero(mask: Tensor) -> Tensor:
    if mask.device.type == "cpu":  # numpy scans booleans several times faster than torch
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def empty(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate like ``torch.empty``, on the CPU through numpy, which asks for huge pages.

    Touching fresh small pages costs more than selecting among the 46 M weights of a large layer.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.empty(size, dtype=np.uint8)).view(dtype).view(shape)


def tree_sum(values: Tensor) -> Tensor:
    """Sum over the last dimension by halving, in an order that is the same on every device.

    Library reductions add in an order of their own, so that two devices can rank two groups of
    nearly equal norm differently. Element-wise additions are exact IEEE operations everywhere.

    Args:
        values: (..., n); overwritten where that saves memory.

    Returns:
        (...): the sums; zeros where n = 0.
    """
    while values.shape[-1] > 1:
        half = (values.shape[-1] + 1) // 2
        rest = values.shape[-1] - half
        values[..., :rest].add_(values[..., half:])
        values = values[..., :half]
    return values[..., 0] if values.shape[-1] else values.sum(-1)


def keep(weight: Tensor, mask: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``weight`` where ``mask`` holds and +0.0 elsewhere, in the weight's memory format."""
    source = weight.detach()
    if out is None:
        plain = source.is_contiguous()
        out = (
            empty(source.shape, source.dtype, source.device) if plain else torch.empty_like(source)
        )
    large_on_cpu = source.device.type == "cpu" and source.numel() > _CPU_CHUNK
    if large_on_cpu and all(tensor.is_contiguous() for tensor in (source, mask, out)):
        _keep_bits(source.view(-1), mask.view(-1), out.view(-1))
        return out
    return torch.where(mask, source, source.new_zeros(()), out=out)


def _keep_bits(source: Tensor, mask: Tensor, out: Tensor) -> None:
    """``keep`` by a bitwise AND with all ones or all zeros, in half of the time of ``torch.where``."""
    ones = torch.empty(_CPU_CHUNK, dtype=_integer_dtype(source))
    for values, kept, result in zip(
        source.split(_CPU_CHUNK), mask.split(_CPU_CHUNK), out.split(_CPU_CHUNK), strict=True
    ):
        bits = ones[: len(values)].copy_(kept).neg_()  # True is 1, and −1 is all ones
        torch.bitwise_and(_bits(values), bits, out=_bits(result))


def zero_outside(weight: Tensor, mask: Tensor) -> None:
    """Set ``weight`` to exactly +0.0 outside ``mask``, in place, whatever stood there (NaN too)."""
    weight.detach().masked_fill_(~mask, 0.0)
