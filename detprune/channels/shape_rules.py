"""Rules for channels in changes of shape, cuts and concatenations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from detprune.channels.pointwise import united
from detprune.channels.reshaping import reshaped
from detprune.channels.trace import Channels
from detprune.channels.tracker import Tracker, arguments


def view(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Another shape of the same entries; a size that is hard-coded is found by trial (``verification.py``)."""
    x = args[0]
    channels = tracker.channels(x)
    if channels is None:
        return
    found = reshaped(tracker.record.labels, channels.row, channels.dim, x.shape, out.shape)
    if found is None:
        tracker.freeze(x, "is viewed in sizes that mix channels")
    else:
        tracker.know(out, replace(channels, row=found[0], dim=found[1]))


def permute(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        dims = [dim % out.dim() for dim in args[1]]
        tracker.know(out, replace(channels, dim=dims.index(channels.dim)))


def transpose(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        one, other = (args[1] % out.dim(), args[2] % out.dim()) if len(args) > 1 else (0, 1)
        swapped = {one: other, other: one}.get(channels.dim, channels.dim)
        tracker.know(out, replace(channels, dim=swapped))


def expand(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        tracker.know(out, replace(channels, dim=channels.dim + out.dim() - args[0].dim()))


def repeat(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Copies one after the other; along the dimension of channels, every label occurs several times."""
    channels = tracker.channels(args[0])
    if channels is not None:
        dim = channels.dim + out.dim() - args[0].dim()
        tracker.know(out, replace(channels, row=np.tile(channels.row, args[1][dim]), dim=dim))


def unsqueeze(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        new = args[1] % out.dim()
        tracker.know(out, replace(channels, dim=channels.dim + (new <= channels.dim)))


def squeeze(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    x = args[0]
    channels = tracker.channels(x)
    if channels is None:
        return
    dims = args[1] if len(args) > 1 else range(x.dim())
    dims = {dim % x.dim() for dim in ([dims] if isinstance(dims, int) else dims)}
    gone = sum(x.shape[dim] == 1 and dim < channels.dim for dim in dims)
    tracker.know(out, replace(channels, dim=channels.dim - gone))


def select(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """One index of a dimension, or every index by itself."""
    x = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % x.dim()
    channels = tracker.channels(x)
    if channels is None:
        return
    if channels.dim == dim:
        tracker.freeze(x, "has single channels picked out")
        return
    for result in out if isinstance(out, tuple | list) else (out,):
        tracker.know(result, replace(channels, dim=channels.dim - (dim < channels.dim)))


def cut(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    given = arguments(func, args, kwargs)
    x, dim = given["self"], given["dim"] % given["self"].dim()
    channels = tracker.channels(x)
    if channels is None:
        return
    if channels.dim == dim and out.shape[dim] != x.shape[dim]:
        tracker.freeze(x, "is cut at a fixed place")
        start = (given["start"] or 0) % max(1, x.shape[dim])
        row = channels.row[start :: given["step"]][: out.shape[dim]]
        channels = replace(channels, row=row)
    tracker.know(out, channels)


def split(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Cut into equal parts (``chunk``), whose size follows the width, or into stored sizes, which do not follow it."""
    given = arguments(func, args, kwargs)
    x, dim = given["self"], given["dim"] % given["self"].dim()
    channels = tracker.channels(x)
    if channels is None:
        return
    if channels.dim != dim:
        for part in out:
            tracker.know(part, channels)
        return
    sizes = [part.shape[dim] for part in out]
    ends = np.cumsum(sizes)
    rows = [channels.row[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    if len(out) > 1 and (tracker.function != "chunk" or len(set(sizes)) > 1):
        tracker.freeze(x, "is split into parts of a fixed size")
    elif len(out) > 1:
        tracker.record.chunks.append(tuple(rows))
    for part, row in zip(out, rows, strict=True):
        tracker.know(part, replace(channels, row=row))


def cat(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    parts = [part for part in args[0] if part.numel() or part.dim() > 1]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    known = [tracker.channels(part) for part in parts]
    if all(channels is None for channels in known):
        return
    if any(channels is not None and channels.dim != dim for channels in known):
        tracker.know(out, _joined(tracker, func, parts, out))
        return
    rows, sources = [], frozenset[tuple[str, int]]()
    for part, channels in zip(parts, known, strict=True):
        if channels is None:
            rows.append(tracker.record.labels.new(part.shape[dim], "is of fixed width"))
            continue
        if not channels.zero:
            tracker.freeze(part, "is not zero when its weights are, and is concatenated")
        rows.append(channels.row)
        sources |= channels.sources
    tracker.know(out, Channels(np.concatenate(rows), dim, True, sources))


def stack(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Tensors of one shape, along a new dimension: channels at the same place are one class."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    joined = _joined(tracker, func, args[0], args[0][0])
    if joined is not None:
        tracker.know(out, replace(joined, dim=joined.dim + (dim <= joined.dim)))


def _joined(tracker: Tracker, func: Any, parts: Sequence[Tensor], out: Tensor) -> Channels | None:
    """Channels of tensors that are concatenated along a dimension other than that of the channels."""
    joined = united(tracker, func, parts, out)
    if joined is None:
        return None
    known = [tracker.channels(part) for part in parts]
    zero = all(channels is not None and channels.zero for channels in known)
    own = [channels.sources for channels in known if channels is not None]
    return replace(joined, zero=zero, sources=frozenset().union(*own))


def pad(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Padding around each channel, or padding with constant channels, which stay."""
    given = arguments(func, args, kwargs)
    x, pad, value = given["self"], given["pad"], given["value"]
    channels = tracker.channels(x)
    if channels is None:
        return
    place = x.dim() - 1 - channels.dim
    before, after = pad[2 * place : 2 * place + 2] if len(pad) > 2 * place else (0, 0)
    if min(before, after) < 0:
        tracker.freeze(x, "is cut to a fixed width")
        tracker.know(out, None)
        return
    new = tracker.record.labels.new
    reason = "is padded with a fixed number of channels"
    row = np.concatenate([new(before, reason), channels.row, new(after, reason)])
    tracker.know(out, replace(channels, row=row, zero=channels.zero and value == 0))


def restride(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """``as_strided``: with ``channels_last`` adaptive average pooling to 1×1 changes only the strides of its result."""
    if func._schema.is_mutable and tracker.function.startswith("adaptive_avg_pool"):
        return
    tracker.freeze_all(args, f"goes through {func.__name__}, which is not followed")
    if func._schema.is_mutable:
        tracker.forget(args)
