"""The table of operations, with the rule that follows channels through each of them.

An operation that has no rule here, and that PyTorch does not tag as entry by entry (``torch.Tag.pointwise``), is not
followed: all channels of its arguments stay. So an unknown operation may keep channels that could have been removed,
but never gives a wrong result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detprune.channels import shape_rules, value_rules
from detprune.channels.tracker import Tracker

Rule = Callable[[Tracker, Any, Sequence[Any], Mapping[str, Any], Any], None]
"""``rule(tracker, func, args, kwargs, out)`` notes the channels of ``out``."""

_BY_RULE: dict[Rule, Sequence[str]] = {
    value_rules.same: ("clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"),
    value_rules.convolution: ("convolution",),
    value_rules.batch_norm: (
        "native_batch_norm",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_no_update",
    ),
    value_rules.group_norm: ("native_group_norm",),
    value_rules.layer_norm: ("native_layer_norm",),
    value_rules.spatial: (
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
        "reflection_pad3d",
        "replication_pad3d",
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact3d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "grid_sampler_2d",
        "grid_sampler_3d",
    ),
    shape_rules.pad: ("constant_pad_nd",),
    value_rules.softmax: ("_softmax", "_log_softmax"),
    value_rules.reduce: ("mean", "sum", "amax", "amin"),
    shape_rules.view: ("view", "_unsafe_view", "reshape", "_reshape_alias"),
    shape_rules.permute: ("permute",),
    shape_rules.transpose: ("transpose", "t"),
    shape_rules.expand: ("expand",),
    shape_rules.unsqueeze: ("unsqueeze",),
    shape_rules.squeeze: ("squeeze",),
    shape_rules.select: ("select", "unbind"),
    shape_rules.cut: ("slice",),
    shape_rules.split: ("split", "split_with_sizes"),
    shape_rules.repeat: ("repeat",),
    shape_rules.cat: ("cat",),
    shape_rules.stack: ("stack",),
    shape_rules.restride: ("as_strided",),
    value_rules.copy: ("copy",),
    value_rules.fill: ("fill", "zero"),
    value_rules.random: ("bernoulli",),
    value_rules.dropout: ("native_dropout",),
    value_rules.like: (
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
    ),
    value_rules.nothing: ("new_zeros", "new_ones", "new_empty", "new_full", "sym_size", "dim"),
}

RULES: dict[str, Rule] = {name: rule for rule, names in _BY_RULE.items() for name in names}
"""Name of an operation → its rule; in-place operations are found by the name without the underscore."""

CHANGES_IN_PLACE = ("copy", "fill", "zero", "bernoulli", "detach", "as_strided")
"""Operations whose rule also holds for the in-place form."""
