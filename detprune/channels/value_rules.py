"""Rules for channels in layers, norms, poolings and sums."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from detprune.channels.pointwise import united, write_in_place
from detprune.channels.trace import Channels
from detprune.channels.tracker import Tracker, arguments


def same(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """The result has the channels of the first tensor."""
    tracker.know(out, tracker.channels(args[0]))
    tracker.same_name(out, args[0])


def convolution(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Convolution, also transposed, with any number of groups."""
    tracker.convolution(args, kwargs, out)


def spatial(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Pooling and resampling, which work on each channel alone: zero stays zero."""
    x, results = args[0], out if isinstance(out, tuple | list) else (out,)
    channels = tracker.channels(x)
    for other in args[1:]:
        tracker.freeze_all(other, f"places the entries of {func._schema.name}")
    if channels is None:
        return
    if channels.dim > 1 or results[0].shape[channels.dim] != x.shape[channels.dim]:
        tracker.freeze(x, f"is mixed by {func._schema.name.removeprefix('aten::')}")
        return
    tracker.know(results[0], channels)
    for result in results[1:]:  # indices of the largest entries
        tracker.know(result, replace(channels, zero=False))


def batch_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Batch norm; γ and β belong to the channel: with both at zero the channel is zero, whatever its input.

    Without γ it is zero where zeros come in that are normalised by statistics of their own, as in an instance norm.
    """
    x, scale, shift, *statistics = args[:5]
    row, channels = tracker.row_of(x, 1, "is normalised along another dimension")
    labels = tracker.record.labels
    sources = frozenset[tuple[str, int]]() if channels is None else channels.sources
    for vector in statistics:
        if (name := tracker.name(vector)) is not None:
            tracker.record.slice(name, 0, row)
        elif vector is not None:
            labels.freeze(row, "has batch-norm statistics that are no buffers")
    zero = []
    for vector in (scale, shift):
        written = None if vector is None else tracker.write_vector(vector, row)
        zero.append(written is not None)
        if vector is not None and written is None:
            labels.freeze(row, "has batch-norm scales that are no parameters")
        sources |= written or frozenset()
    own_statistics = args[5] is True or all(vector is None for vector in statistics)
    zero_inside = own_statistics and channels is not None and channels.zero
    result = out[0] if isinstance(out, tuple | list) else out
    is_zero = (zero[1] or shift is None) and (zero[0] or zero_inside)
    tracker.know(result, Channels(row, 1, is_zero, sources))


def group_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Group norm: channels that are normalised together are one class, so whole groups are removed."""
    x, scale, shift, groups = args[0], args[1], args[2], args[6]
    row, channels = tracker.row_of(x, 1, "is normalised along another dimension")
    labels = tracker.record.labels
    for part in row.reshape(groups, -1):
        labels.unite_all(part)
    own = [tracker.write_vector(vector, row) for vector in (scale, shift)]
    name = tracker.name(scale)
    if None in own or not isinstance(tracker.record.owners[name or ""], nn.GroupNorm):
        labels.freeze(row, "is normalised in groups without parameters of its own")
        return
    sources = frozenset[tuple[str, int]]() if channels is None else channels.sources
    sources = sources.union(*(written or () for written in own))
    tracker.know(out[0], Channels(row, 1, True, sources))


def layer_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Layer norm: followed where it normalises within each channel; across channels all of them stay."""
    x, shape, _, shift = args[:4]
    channels = tracker.channels(x)
    if channels is None:
        return
    if channels.dim >= x.dim() - len(shape):
        tracker.freeze(x, "is normalised across channels")
        return
    tracker.know(out[0], replace(channels, zero=channels.zero and shift is None))


def softmax(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Softmax: within each channel its result is not zero; across channels all of them stay."""
    x, dim = args[0], args[1] % args[0].dim()
    channels = tracker.channels(x)
    if channels is not None and channels.dim == dim:
        tracker.freeze(x, "goes through a softmax across channels")
    elif channels is not None:
        tracker.know(out, replace(channels, zero=False))


def reduce(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Means, sums and extremes; within each channel they are followed."""
    given = arguments(func, args, kwargs)
    x, dims = given["self"], given["dim"]
    channels = tracker.channels(x)
    if channels is None:
        return
    dims = range(x.dim()) if dims is None or dims == [] else dims
    dims = {dim % x.dim() for dim in ([dims] if isinstance(dims, int) else dims)}
    if channels.dim in dims:
        tracker.freeze(
            x, f"goes through {func._schema.name.removeprefix('aten::')} across channels"
        )
        return
    shift = 0 if given["keepdim"] else sum(dim < channels.dim for dim in dims)
    tracker.know(out, replace(channels, dim=channels.dim - shift))


def copy(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = united(tracker, func, args[:2], out)
    if channels is not None:
        source = tracker.channels(args[1])
        zero = source is not None and source.zero
        channels = replace(
            channels,
            zero=zero,
            sources=channels.sources | (source.sources if source else frozenset()),
        )
    write_in_place(tracker, out, channels, args[:2])


def fill(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Fill with one number."""
    channels = tracker.channels(out)
    if channels is not None:
        value = args[1] if len(args) > 1 else 0
        zero = not isinstance(value, Tensor) and value == 0
        channels = replace(channels, zero=zero, sources=frozenset())
    write_in_place(tracker, out, channels, args[:1])


def like(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """A new tensor with the shape of another."""
    channels = tracker.channels(args[0])
    if channels is not None:
        zero = func._schema.name == "aten::zeros_like"
        tracker.know(out, replace(channels, zero=zero, sources=frozenset()))


def random(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """The mask of a dropout: it has the same shape, and is not zero."""
    channels = tracker.channels(args[0])
    tracker.know(out, None if channels is None else replace(channels, zero=False))


def dropout(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    tracker.know(out[0], tracker.channels(args[0]))


def nothing(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """A new tensor that has only the device and the dtype of another."""
