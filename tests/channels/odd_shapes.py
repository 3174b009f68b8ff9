"""Tiny networks with odd changes of shape: cuts, concatenations, views, padding; see ``odd_parts.py``."""

import torch
import torch.nn.functional as F
from channel_checks import Net
from odd_parts import GOES, NOT_ZERO, STAYS, Case, between, c88, conv, sequential
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


def shuffled(m: Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def literal(m: Net, x: Tensor) -> Tensor:
    return x.view(-1, 8, 36).view(-1, 8, 6, 6)


def literal_in_part(m: Net, x: Tensor) -> Tensor:
    return x + m.d(m.c(x).view(2, 6, 36).view(2, 6, 6, 6))


def repeated(m: Net, x: Tensor) -> Tensor:
    return x.repeat(1, 2, 1, 1)


CUT = {"a.weight": "is cut at a fixed place"}


SPLIT = {"a.weight": "is split into parts of a fixed size"}


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
    "batch folded into rows": (
        between(lambda m, x: x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[..., None, None]),
        GOES,
    ),
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
}
