"""Tiny networks with odd layers: norms, grouped and transposed convolutions, attention; see ``odd_parts.py``."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from channel_checks import Net
from odd_parts import (
    GOES,
    NOT_ZERO,
    STAYS,
    Case,
    Made,
    between,
    c88,
    conv,
    image,
    of_parameter,
    sequential,
    sizes,
)
from torch import Tensor, nn


def flattened(*tail: Callable[[], nn.Module]) -> Callable[[], Made]:
    def make() -> Made:
        return nn.Sequential(conv(3, 8), *(layer() for layer in tail), nn.Linear(8 * 36, 5)), (
            image(),
        )

    return make


def channels_last(m: Net, x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    return m.l2(F.gelu(m.l1(x))).permute(0, 3, 1, 2)


def channels_last_norm(m: Net, x: Tensor) -> Tensor:
    return m.l2(F.gelu(m.l1(m.n(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)


def self_attention(m: Net, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return m.t(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).unflatten(2, (6, 6))


def recurrent(m: Net, x: Tensor) -> Tensor:
    return m.t(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, (6, 6))


def linears(*widths: int, **options: Any) -> Callable[[], nn.Module]:
    pairs = pairwise(widths)
    return lambda: nn.Sequential(
        *(layer for i, o in pairs for layer in (nn.Linear(i, o), nn.ReLU()))
    )


CASES: dict[str, Case] = {
    "flatten, linear": (flattened(nn.ReLU, nn.Flatten), {"0.weight": None}),
    "norm, flatten, linear": (
        flattened(lambda: nn.BatchNorm2d(8), nn.ReLU, nn.Flatten),
        {"0.weight": None},
    ),
    "NHWC, linear": (
        between(channels_last, l1=lambda: nn.Linear(8, 16), l2=lambda: nn.Linear(16, 8)),
        {"a.weight": None, "l1.weight": None, "l2.weight": None},
    ),
    "NHWC, layer norm": (
        between(
            channels_last_norm,
            n=lambda: nn.LayerNorm(8),
            l1=lambda: nn.Linear(8, 16),
            l2=lambda: nn.Linear(16, 8),
        ),
        {"a.weight": "across channels", "l1.weight": None},
    ),
    "layer norm over space": (
        between(lambda m, x: m.n(x), n=lambda: nn.LayerNorm([6, 6])),
        NOT_ZERO,
    ),
    "layer norm over space, plain": (
        between(lambda m, x: m.n(x), n=lambda: nn.LayerNorm([6, 6], elementwise_affine=False)),
        GOES,
    ),
    "layer norm over all": (
        between(lambda m, x: m.n(x), n=lambda: nn.LayerNorm([8, 6, 6])),
        {"a.weight": "across channels"},
    ),
    "rms norm": (
        between(
            lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=lambda: nn.RMSNorm(8)
        ),
        STAYS,
    ),
    "group norm 1": (between(lambda m, x: m.n(x), n=lambda: nn.GroupNorm(1, 8)), STAYS),
    "group norm 4": (between(lambda m, x: m.n(x), n=lambda: nn.GroupNorm(4, 8)), GOES),
    "group norm of channels": (between(lambda m, x: m.n(x), n=lambda: nn.GroupNorm(8, 8)), GOES),
    "group norm, not affine": (
        between(lambda m, x: m.n(x), n=lambda: nn.GroupNorm(4, 8, affine=False)),
        STAYS,
    ),
    "instance norm": (between(lambda m, x: m.n(x), n=lambda: nn.InstanceNorm2d(8)), GOES),
    "instance norm, affine": (
        between(lambda m, x: m.n(x), n=lambda: nn.InstanceNorm2d(8, affine=True)),
        GOES,
    ),
    "instance norm, tracking": (
        between(
            lambda m, x: m.n(x),
            n=lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        ),
        STAYS,
    ),
    "batch norm": (between(lambda m, x: m.n(x).relu(), n=lambda: nn.BatchNorm2d(8)), GOES),
    "batch norm, not affine": (
        between(lambda m, x: m.n(x), n=lambda: nn.BatchNorm2d(8, affine=False)),
        NOT_ZERO,
    ),
    "batch norm, no statistics": (
        between(lambda m, x: m.n(x), n=lambda: nn.BatchNorm2d(8, track_running_stats=False)),
        GOES,
    ),
    "batch norm before": (
        between(lambda m, x: m.c(m.n(x).relu()), n=lambda: nn.BatchNorm2d(8), c=c88),
        GOES,
    ),
    "local response norm": (between(lambda m, x: m.n(x), n=lambda: nn.LocalResponseNorm(2)), STAYS),
    "PReLU": (between(lambda m, x: m.p(x), p=lambda: nn.PReLU(8)), GOES),
    "PReLU of one": (between(lambda m, x: m.p(x), p=lambda: nn.PReLU()), GOES),
    "GLU": (between(lambda m, x: F.glu(x, 1), 16, 8), {"a.weight": "glu"}),
    "layer scale": (between(lambda m, x: x + m.c(x) * m.s, c=c88, s=of_parameter((8, 1, 1))), GOES),
    "scale by a vector": (
        between(lambda m, x: x * m.s.view(1, -1, 1, 1), s=of_parameter((8,))),
        GOES,
    ),
    "shift by a vector": (
        between(lambda m, x: x + m.s.view(1, -1, 1, 1), s=of_parameter((8,))),
        GOES,
    ),
    "shift by exp of a vector": (
        between(lambda m, x: x + m.s.exp()[:, None, None], s=of_parameter((8,))),
        NOT_ZERO,
    ),
    "positions": (between(lambda m, x: x + m.s, s=of_parameter((1, 8, 6, 6))), STAYS),
    "rows' positions": (between(lambda m, x: x + m.s, s=of_parameter((1, 1, 6, 1))), STAYS),
    "one number": (between(lambda m, x: x * m.s, s=of_parameter(())), GOES),
    "means in a buffer": (between(lambda m, x: x - m.s, s=torch.randn(1, 8, 1, 1)), NOT_ZERO),
    "scales in a buffer": (between(lambda m, x: x * m.s, s=torch.randn(8, 1, 1)), GOES),
    "transposed": (
        sequential(lambda: conv(3, 8), lambda: nn.ConvTranspose2d(8, 8, 2, 2), lambda: conv(8, 4)),
        {"0.weight": None, "1.weight": None},
    ),
    "transposed, groups": (
        sequential(
            lambda: conv(3, 8),
            lambda: nn.ConvTranspose2d(8, 16, 2, 2, groups=4),
            lambda: conv(16, 4),
        ),
        {"0.weight": None, "1.weight": None},
    ),
    "transposed, depthwise": (
        sequential(
            lambda: conv(3, 8),
            lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8, bias=False),
            lambda: conv(8, 4),
        ),
        {"0.weight": None, "1.weight": None},
    ),
    "depthwise": (
        sequential(lambda: conv(3, 8), lambda: conv(8, 8, 3, groups=8), lambda: conv(8, 4)),
        {"0.weight": None},
    ),
    "depthwise times two": (
        sequential(lambda: conv(3, 8), lambda: conv(8, 16, 3, groups=8), lambda: conv(16, 4)),
        {"0.weight": None},
    ),
    "two groups": (
        sequential(lambda: conv(3, 8), lambda: conv(8, 8, 3, groups=2), lambda: conv(8, 4)),
        {"0.weight": None},
    ),
    "32 groups": (
        sequential(lambda: conv(3, 64), lambda: conv(64, 32, 3, groups=32), lambda: conv(32, 4)),
        {"0.weight": None},
    ),
    "groups of groups": (
        sequential(
            lambda: conv(3, 16),
            lambda: conv(16, 16, groups=8),
            lambda: conv(16, 16, groups=4),
            lambda: conv(16, 4),
        ),
        {"0.weight": None},
    ),
    "Conv1d": (
        sequential(
            lambda: nn.Conv1d(3, 8, 3),
            lambda: nn.BatchNorm1d(8),
            nn.ReLU,
            lambda: nn.MaxPool1d(2),
            lambda: nn.Conv1d(8, 4, 1),
            inputs=sizes(3, 20),
        ),
        {"0.weight": None},
    ),
    "Conv3d": (
        sequential(
            lambda: nn.Conv3d(3, 8, 3),
            lambda: nn.BatchNorm3d(8),
            nn.ReLU,
            lambda: nn.AvgPool3d(2),
            lambda: nn.Conv3d(8, 4, 1),
            inputs=sizes(3, 6, 6, 6),
        ),
        {"0.weight": None},
    ),
    "linear layers": (
        sequential(linears(5, 16, 16), lambda: nn.Linear(16, 3), inputs=sizes(5)),
        {"0.0.weight": None, "0.2.weight": None},
    ),
    "linear, BatchNorm1d": (
        sequential(
            linears(5, 16), lambda: nn.BatchNorm1d(16), lambda: nn.Linear(16, 3), inputs=sizes(5)
        ),
        {"0.0.weight": None},
    ),
    "bilinear": (
        between(
            lambda m, x: m.t(x.mean((2, 3)), x.mean((2, 3)))[..., None, None],
            t=lambda: nn.Bilinear(8, 8, 8),
        ),
        STAYS,
    ),
    "multi-head attention": (
        between(self_attention, t=lambda: nn.MultiheadAttention(8, 2, batch_first=True)),
        STAYS,
    ),
    "encoder layer": (
        between(
            lambda m, x: m.t(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (6, 6)),
            t=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0),
        ),
        STAYS,
        {"exact_costs": False},  # FlopCounterMode does not count its fused kernel
    ),
    "LSTM": (between(recurrent, t=lambda: nn.LSTM(8, 8, batch_first=True)), STAYS),
    "GRU": (
        between(recurrent, t=lambda: nn.GRU(8, 4, batch_first=True, bidirectional=True)),
        STAYS,
    ),
    "matrix product": (
        between(
            lambda m, x: (x.permute(0, 2, 3, 1) @ m.s).permute(0, 3, 1, 2), s=of_parameter((8, 8))
        ),
        STAYS,
    ),
    "functional convolution": (
        between(lambda m, x: F.conv2d(x, m.c.weight, padding=1), c=lambda: conv(8, 8, 3)),
        GOES,
    ),
    "weight of a mask": (
        between(lambda m, x: F.conv2d(x, m.c.weight * m.c.weight.sign()), c=c88),
        STAYS,
    ),
    "weight used twice": (
        between(lambda m, x: m.c(x) + F.conv2d(x, m.c.weight.flip(0)), c=c88),
        {"a.weight": "", "c.weight": "flip"},
    ),
}
