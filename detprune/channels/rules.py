"""How every operation that is known by name treats the channels of what it is given.

An operation that has no rule here, and of which PyTorch does not say that it works entry by entry
(``torch.Tag.pointwise``), is not followed: all channels that come near it stay. A new operation costs
channels that could have gone, never a wrong result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from detprune.channels.pointwise import united, write_in_place
from detprune.channels.reshaping import reshaped
from detprune.channels.trace import Channels
from detprune.channels.tracker import Tracker

Rule = Callable[[Tracker, Any, Sequence[Any], Mapping[str, Any], Any], None]
"""``rule(tracker, func, args, kwargs, out)`` notes the channels of ``out``."""


def _given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, with their defaults."""
    schema = func._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given |= {argument.name: value for argument, value in zip(schema, args, strict=False)}
    return given | dict(kwargs)


def _same(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """The result has the channels of the first tensor."""
    tracker.know(out, tracker.channels(args[0]))


def _spatial(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Poolings and resamplings work on each channel alone: zero stays zero."""
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
    for result in results[1:]:  # where the largest entries were
        tracker.know(result, replace(channels, zero=False))


def _pad(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Around each channel, or more channels of a constant, which stay."""
    given = _given(func, args, kwargs)
    x, pad, value = given["self"], given["pad"], given["value"]
    channels = tracker.channels(x)
    if channels is None:
        return
    place = x.dim() - 1 - channels.dim
    before, after = pad[2 * place : 2 * place + 2] if len(pad) > 2 * place else (0, 0)
    if min(before, after) < 0:
        tracker.freeze(x, "is cut to a fixed width")
        before, after = max(0, before), out.shape[channels.dim] - max(0, before)
        tracker.know(out, None)
        return
    new = tracker.record.labels.new
    reason = "is padded with a fixed number of channels"
    row = np.concatenate([new(before, reason), channels.row, new(after, reason)])
    tracker.know(out, replace(channels, row=row, zero=channels.zero and value == 0))


def _batch_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """γ and β belong to the channel: with both at zero it is zero, whatever comes in."""
    x, scale, shift, *statistics = args[:5]
    row, channels = tracker.row_of(x, 1, "is normalised along another dimension")
    sources = frozenset[tuple[str, int]]() if channels is None else channels.sources
    own = [tracker.write_vector(vector, row) for vector in (scale, shift)]
    for vector in statistics:
        if (name := tracker.name(vector)) is not None:
            tracker.record.slice(name, 0, row)
        elif vector is not None:
            tracker.record.labels.freeze(row, "has batch-norm statistics that are no buffers")
    for vector, written in zip((scale, shift), own, strict=True):
        if vector is not None and written is None:
            tracker.record.labels.freeze(row, "has batch-norm scales that are no parameters")
        sources |= written or frozenset()
    result = out[0] if isinstance(out, tuple | list) else out
    tracker.know(result, Channels(row, 1, None not in own, sources))


def _group_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Whole groups go: what is normalised together stays together."""
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


def _layer_norm(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Exact where it normalises within each channel; across channels they all stay."""
    x, shape, _, shift = args[:4]
    channels = tracker.channels(x)
    if channels is None:
        return
    if channels.dim >= x.dim() - len(shape):
        tracker.freeze(x, "is normalised across channels")
        return
    tracker.know(out[0], replace(channels, zero=channels.zero and shift is None))


def _softmax(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Within each channel it is not zero; across channels they all stay."""
    x, dim = args[0], args[1] % args[0].dim()
    channels = tracker.channels(x)
    if channels is not None and channels.dim == dim:
        tracker.freeze(x, "goes through a softmax across channels")
    elif channels is not None:
        tracker.know(out, replace(channels, zero=False))


def _reduce(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Means, sums and extremes within each channel."""
    given = _given(func, args, kwargs)
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


def _view(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    x = args[0]
    channels = tracker.channels(x)
    if channels is None:
        return
    if tracker.strict and tracker.function not in _FOLLOW_THE_SIZES:
        tracker.freeze(x, "is viewed in sizes that are written out")
    found = reshaped(tracker.record.labels, channels.row, channels.dim, x.shape, out.shape)
    if found is None:
        tracker.freeze(x, "is viewed in sizes that mix channels")
    else:
        tracker.know(out, replace(channels, row=found[0], dim=found[1]))


_FOLLOW_THE_SIZES = ("flatten",)


def _permute(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        dims = [dim % out.dim() for dim in args[1]]
        tracker.know(out, replace(channels, dim=dims.index(channels.dim)))


def _transpose(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if tracker.name(args[0]) is not None and channels is None:
        tracker.freeze(args[0], "is used in a way that is not followed")
    if channels is not None:
        one, other = (args[1] % out.dim(), args[2] % out.dim()) if len(args) > 1 else (0, 1)
        swapped = {one: other, other: one}.get(channels.dim, channels.dim)
        tracker.know(out, replace(channels, dim=swapped))


def _expand(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        tracker.know(out, replace(channels, dim=channels.dim + out.dim() - args[0].dim()))


def _unsqueeze(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    channels = tracker.channels(args[0])
    if channels is not None:
        new = args[1] % out.dim()
        tracker.know(out, replace(channels, dim=channels.dim + (new <= channels.dim)))


def _squeeze(
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


def _select(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """One index, or each index by itself, of a dimension."""
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


def _slice(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    given = _given(func, args, kwargs)
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


def _split(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Into equal parts (``chunk``), which works out their size anew; into stored sizes, which does not."""
    given = _given(func, args, kwargs)
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


def _cat(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    parts = [part for part in args[0] if part.numel() or part.dim() > 1]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    known = [tracker.channels(part) for part in parts]
    if all(channels is None for channels in known):
        return
    if any(channels is not None and channels.dim != dim for channels in known):
        joined = united(tracker, func, parts, out)
        if joined is not None:
            zero = all(channels is not None and channels.zero for channels in known)
            own = [channels.sources for channels in known if channels is not None]
            tracker.know(out, replace(joined, zero=zero, sources=frozenset().union(*own)))
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


def _copy(
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


def _like(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """A new tensor of the shape that another has."""
    channels = tracker.channels(args[0])
    if channels is not None:
        zero = func._schema.name == "aten::zeros_like"
        tracker.know(out, replace(channels, zero=zero, sources=frozenset()))


def _random(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """The mask of a dropout: of the same shape, and not zero."""
    channels = tracker.channels(args[0])
    tracker.know(out, None if channels is None else replace(channels, zero=False))


def _dropout(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    tracker.know(out[0], tracker.channels(args[0]))


def _nothing(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """A new tensor that has only the device and the dtype of another."""


def _convolution(
    tracker: Tracker, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    tracker.convolution(args, kwargs, out)


_BY_RULE: dict[Rule, Sequence[str]] = {
    _same: ("clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"),
    _convolution: ("convolution",),
    _batch_norm: (
        "native_batch_norm",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
    ),
    _group_norm: ("native_group_norm",),
    _layer_norm: ("native_layer_norm",),
    _spatial: (
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "_upsample_nearest_exact2d",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
    ),
    _pad: ("constant_pad_nd",),
    _softmax: ("_softmax", "_log_softmax"),
    _reduce: ("mean", "sum", "amax", "amin"),
    _view: ("view", "_unsafe_view", "reshape", "_reshape_alias"),
    _permute: ("permute",),
    _transpose: ("transpose", "t"),
    _expand: ("expand",),
    _unsqueeze: ("unsqueeze",),
    _squeeze: ("squeeze",),
    _select: ("select", "unbind"),
    _slice: ("slice",),
    _split: ("split", "split_with_sizes"),
    _cat: ("cat",),
    _copy: ("copy",),
    _random: ("bernoulli",),
    _dropout: ("native_dropout",),
    _like: ("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    _nothing: ("new_zeros", "new_ones", "new_empty", "new_full", "sym_size", "dim"),
}

RULES: dict[str, Rule] = {name: rule for rule, names in _BY_RULE.items() for name in names}
"""Rule of every operation that is known by name; in-place ones go by the name without the underscore."""
