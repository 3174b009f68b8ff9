"""Tiny networks with odd operations on shapes and odd layers; see ``odd_values.py``."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from channel_checks import Net
from odd_values import GOES, NOT_ZERO, Case, Made, between, c88, conv, image
from torch import Tensor, nn


def halves(m: Net, x: Tensor) -> Tensor:
    one, other = x.chunk(2, 1)
    return one.relu() * other.sigmoid() + m.c(other)


def halves_sum(m: Net, x: Tensor) -> Tensor:
    one, other = x.chunk(2, 1)
    return one + other


def thirds(m: Net, x: Tensor) -> Tensor:
    one, two, three = x.chunk(3, 1)
    return torch.cat([three, one.relu(), two], 1)


def quarters(m: Net, x: Tensor) -> Tensor:
    return sum(part.relu() for part in x.chunk(4, 1))


def chunk_of_chunk(m: Net, x: Tensor) -> Tensor:
    one, other = x.chunk(2, 1)
    first, second = one.chunk(2, 1)
    return torch.cat([first.relu(), second, other.relu()], 1)


def chunks_of_chunks(m: Net, x: Tensor) -> Tensor:
    return torch.cat([part.relu() for half in x.chunk(2, 1) for part in half.chunk(2, 1)], 1)


def nested_split(m: Net, x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return torch.cat([x[:, :half].relu(), x[:, half:]], 1)


def flattened(*tail: nn.Module) -> Callable[[], Made]:
    def make() -> Made:
        return nn.Sequential(conv(3, 8), *(t for t in tail), nn.Linear(8 * 36, 5)), (image(),)

    return make


def sequential(
    *layers: Callable[[], nn.Module], inputs: Callable[[], Any] = image
) -> Callable[[], Made]:
    return lambda: (nn.Sequential(*(layer() for layer in layers)), (inputs(),))


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


def shuffled(m: Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def literal(m: Net, x: Tensor) -> Tensor:
    return x.view(-1, 8, 36).view(-1, 8, 6, 6)


def literal_in_part(m: Net, x: Tensor) -> Tensor:
    return x + m.d(m.c(x).view(2, 6, 36).view(2, 6, 6, 6))


def repeated(m: Net, x: Tensor) -> Tensor:
    return x.repeat(1, 2, 1, 1)


def linears(*widths: int, **options: Any) -> Callable[[], nn.Module]:
    pairs = pairwise(widths)
    return lambda: nn.Sequential(
        *(layer for i, o in pairs for layer in (nn.Linear(i, o), nn.ReLU()))
    )


def sizes(n: int = 1, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, n, *shape)


def of_parameter(shape: tuple[int, ...]) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


CUT = {"a.weight": "is cut at a fixed place"}
SPLIT = {"a.weight": "is split into parts of a fixed size"}
STAYS: dict[str, str | None] = {"a.weight": ""}

CASES: dict[str, Case] = {
    "chunk in two, gated": (between(halves, 16, 8, c=c88), GOES),
    "chunk in two, added": (between(halves_sum, 16, 8), GOES),
    "chunk in three": (between(thirds, 12, 12), GOES),
    "chunk in four": (between(quarters, 16, 4), GOES),
    "chunk not even": (between(lambda m, x: torch.cat(x.chunk(3, 1), 1)), STAYS),
    "chunk of a chunk": (between(chunk_of_chunk), {"a.weight": "parts that are not alike"}),
    "chunks of all chunks": (between(chunks_of_chunks), STAYS),
    "split by a size": (between(lambda m, x: torch.cat(x.split(4, 1), 1)), SPLIT),
    "split by sizes": (between(lambda m, x: torch.cat(x.split([3, 5], 1), 1)), SPLIT),
    "tensor_split": (between(lambda m, x: torch.cat(x.tensor_split(2, 1), 1)), CUT),
    "unbind": (between(lambda m, x: torch.stack(x.unbind(1), 1)), {"a.weight": "single channels"}),
    "unbind of rows": (between(lambda m, x: torch.stack(x.unbind(2), 2)), GOES),
    "stack and sum": (between(lambda m, x: torch.stack([x, m.c(x)]).sum(0), c=c88), GOES),
    "stack in channels": (
        between(lambda m, x: torch.stack([x, m.c(x)], 2).flatten(1, 2), 8, 16, c=c88),
        GOES,
    ),
    "select a row": (between(lambda m, x: x[:, :, 0:1] + x[:, :, 3][:, :, None]), GOES),
    "cut by half": (between(nested_split), CUT),
    "every second": (between(lambda m, x: x[:, ::2].repeat(1, 2, 1, 1)), CUT),
    "narrow of all": (
        between(lambda m, x: x.narrow(1, 0, 8)),
        {"a.weight": "something else depends on"},
    ),
    "rows left out": (between(lambda m, x: x[:, :, 1:-1]), GOES),
    "flip of rows": (between(lambda m, x: x.flip(2)), {"a.weight": "flip"}),
    "roll of channels": (between(lambda m, x: x.roll(1, 1)), {"a.weight": "roll"}),
    "cat along width": (between(lambda m, x: torch.cat([x, m.c(x)], 3), c=c88), GOES),
    "cat of itself": (between(lambda m, x: torch.cat([x, x.relu()], 1), 8, 16), GOES),
    "cat with a fixed one": (
        between(lambda m, x: torch.cat([x, torch.ones(2, 2, 6, 6)], 1), 8, 10),
        GOES,
    ),
    "cat with a gate": (between(lambda m, x: torch.cat([x, x.sigmoid()], 1), 8, 16), STAYS),
    "repeat of channels": (between(repeated, 8, 16), GOES),
    "expand over rows": (between(lambda m, x: x.mean(2, keepdim=True).expand_as(x)), GOES),
    "literal expand": (between(lambda m, x: x.mean(2, keepdim=True).expand(2, 8, 6, 6)), STAYS),
    "shuffle by view": (between(shuffled), GOES),
    "literal view": (between(literal), {"a.weight": "something else depends on"}),
    "literal view of a part": (
        between(literal_in_part, c=lambda: conv(8, 6), d=lambda: conv(6, 8)),
        {"a.weight": None, "c.weight": "something else depends on"},
    ),
    "channel shuffle": (
        sequential(lambda: conv(3, 8), lambda: nn.ChannelShuffle(2), lambda: conv(8, 4)),
        {"0.weight": ""},
    ),
    "pixel shuffle": (
        between(lambda m, x: F.pixel_shuffle(x, 2), 8, 2),
        {"a.weight": "pixel_shuffle"},
    ),
    "unfold": (
        between(lambda m, x: F.unfold(x, 3, padding=1).unflatten(2, (6, 6)), 8, 72),
        {"a.weight": ""},
    ),
    "flatten, linear": (flattened(nn.ReLU(), nn.Flatten()), {"0.weight": None}),
    "norm, flatten, linear": (
        flattened(nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
        {"0.weight": None},
    ),
    "batch folded into rows": (
        between(lambda m, x: x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[..., None, None]),
        GOES,
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
    "pad of rows": (between(lambda m, x: F.pad(x, (1, 1, 1, 1))), GOES),
    "pad of rows with one": (between(lambda m, x: F.pad(x, (1, 1, 1, 1), value=1.0)), NOT_ZERO),
    "pad of channels": (between(lambda m, x: F.pad(x, (0, 0, 0, 0, 2, 2)), 8, 12), GOES),
    "pad that cuts channels": (
        between(lambda m, x: F.pad(x, (0, 0, 0, 0, -1, -1)), 8, 6),
        {"a.weight": "cut to a fixed width"},
    ),
    "circular pad": (between(lambda m, x: F.pad(x, (1, 1, 1, 1), mode="circular")), STAYS),
    "reflected pad": (between(lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect")), GOES),
    "grid sample": (
        between(lambda m, x: F.grid_sample(x, torch.rand(2, 6, 6, 2), align_corners=False)),
        GOES,
    ),
    "bicubic": (between(lambda m, x: F.interpolate(x, scale_factor=2, mode="bicubic")), GOES),
    "anti-aliased": (
        between(lambda m, x: F.interpolate(x, size=3, mode="bilinear", antialias=True)),
        GOES,
    ),
    "max unpool": (
        between(lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        STAYS,
    ),
    "LP pool": (between(lambda m, x: F.lp_pool2d(x.relu() + 0, 2, 2)), GOES),
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
