"""Operations that work entry by entry, with broadcasting: channels that meet are united."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from detprune.channels.trace import Channels
from detprune.channels.tracker import Tracker

_PROBES = 64
"""Number of values at which an operation is tried: half of them normally distributed, half a hundred times as large;
the first eight are equal for all arguments."""


def follow_pointwise(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Follow an operation that works entry by entry, with broadcasting: channels that meet are united.

    Whether a zero channel stays zero is found by running the operation itself, on zeros and other numbers.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    channels = united(tracker, func, tensors, out)
    if channels is not None:
        zero = stays_zero(tracker, func, args, kwargs)
        known = [c for c in map(tracker.channels, tensors) if c is not None]
        needed = [c.sources for c in known if c.zero or not zero]
        channels = Channels(channels.row, channels.dim, zero, frozenset().union(*needed))
    if not func._schema.is_mutable:
        tracker.know(out, channels)
        return
    write_in_place(tracker, out, channels, tensors)


def united(tracker: Tracker, func: Any, tensors: Sequence[Tensor], out: Tensor) -> Channels | None:
    """Channels of the result of tensors that are broadcast against each other; channels that meet are united."""
    found: Channels | None = None
    places = []
    for tensor in tensors:
        channels = tracker.channels(tensor)
        places.append(None if channels is None else channels.dim + out.dim() - tensor.dim())
    dims = {dim for dim in places if dim is not None}
    if not dims:
        return None
    dim = min(dims)
    meets = [
        dim - out.dim() >= -tensor.dim() and tensor.shape[dim - out.dim()] > 1 for tensor in tensors
    ]
    if len(dims) > 1 or any(m and p is None for m, p in zip(meets, places, strict=True)):
        reason = f"meets a tensor of fixed width in {func._schema.name.removeprefix('aten::')}"
        for tensor in tensors:
            tracker.freeze(tensor, reason)
        if len(dims) > 1:
            return None
    for tensor, place in zip(tensors, places, strict=True):
        channels = tracker.channels(tensor)
        if place is None or channels is None:
            continue
        if found is not None:
            tracker.record.labels.unite(found.row, channels.row)
        else:
            found = Channels(channels.row, dim, channels.zero, channels.sources)
    return found


def stays_zero(tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the result is zero where the zero channels of its arguments are, whatever the other arguments are."""
    generator = torch.Generator().manual_seed(0)

    def stand_in(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        channels = tracker.channels(value)
        if channels is not None and channels.zero:
            return value.new_zeros(_PROBES)
        probes = torch.randn(_PROBES, generator=generator)  # different for every tensor
        probes[_PROBES // 2 :] *= 100
        probes[:8] = torch.linspace(-1.1, 2.4, 8)  # none of them is 0, so that 0 / 0 does not occur
        if value.dtype == torch.bool:
            probes = probes > 0
        return probes.to(value.device, value.dtype)

    args, kwargs = tree_map(stand_in, (tuple(args), dict(kwargs)))
    try:
        return bool((func(*args, **kwargs) == 0).all())
    except (RuntimeError, TypeError):  # it needs another dtype or shape: not known to stay zero
        return False


def write_in_place(
    tracker: Tracker, out: Tensor, channels: Channels | None, tensors: Sequence[Tensor]
) -> None:
    """Note a change in place; where other tensors share the memory, it must keep their channels valid too."""
    shared = any(
        other is not out and other.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
        for other in tracker._known
    )
    before = tracker.channels(out)
    if shared and (channels is None or not channels.zero or before is None or not before.zero):
        for tensor in tensors:
            tracker.freeze(tensor, "is changed in place through a view")
    if channels is not None and shared:
        tracker.record.required |= channels.sources
    tracker.know(out, channels)
