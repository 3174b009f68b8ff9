"""Tiny networks with odd operations on values: shifts, gates, attention; see ``odd_parts.py``."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from channel_checks import Net
from odd_parts import GOES, NOT_ZERO, Case, between, c88, conv
from torch import Tensor


def by_hand_swish(m: Net, x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def squeeze_excite(m: Net, x: Tensor) -> Tensor:
    return x * m.e(F.relu(m.s(x.mean((2, 3), keepdim=True)))).sigmoid()


def masked(m: Net, x: Tensor) -> Tensor:
    inside = torch.ones(6, 6, dtype=torch.bool).tril()
    return torch.where(inside, x, torch.ones(()))


def masked_zero(m: Net, x: Tensor) -> Tensor:
    return x.masked_fill(torch.ones(6, 6, dtype=torch.bool).tril(), 0.0)


def masked_one(m: Net, x: Tensor) -> Tensor:
    return x.masked_fill(torch.ones(6, 6, dtype=torch.bool).tril(), 1.0)


def cbam(m: Net, x: Tensor) -> Tensor:
    x = (
        x
        * (
            m.e(F.relu(m.s(x.mean((2, 3), keepdim=True))))
            + m.e(F.relu(m.s(x.amax((2, 3), keepdim=True))))
        ).sigmoid()
    )
    return x * m.p(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)).sigmoid()


def space_attention(m: Net, x: Tensor) -> Tensor:
    return x * x.flatten(2).softmax(-1).view_as(x)


def linear_attention(m: Net, x: Tensor) -> Tensor:
    q, k = m.q(x).flatten(2), m.k(x).flatten(2)
    return (
        torch.bmm(torch.bmm(q.transpose(1, 2), k).softmax(-1), x.flatten(2).transpose(1, 2))
        .transpose(1, 2)
        .view_as(x)
    )


def einsum_attention(m: Net, x: Tensor) -> Tensor:
    q, k = m.q(x).flatten(2), m.k(x).flatten(2)
    weights = torch.einsum("bci,bcj->bij", q, k).softmax(-1)
    return torch.einsum("bij,bcj->bci", weights, x.flatten(2)).unflatten(2, (6, 6))


def sdpa(m: Net, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return (
        F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).unflatten(2, (6, 6))
    )


def scale_of_width(m: Net, x: Tensor) -> Tensor:
    return x * x.shape[1] ** -0.5


def weight_as_value(m: Net, x: Tensor) -> Tensor:
    return x * m.a.weight.abs().mean()


def through_numpy(m: Net, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() * 2)


def through_list(m: Net, x: Tensor) -> Tensor:
    return torch.tensor(x.tolist(), dtype=x.dtype)


def sigmoids(op: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    return lambda m, x: op(torch.sigmoid(x), torch.cos(m.c(x)))


SE = {"s": lambda: conv(8, 4), "e": lambda: conv(4, 8)}


CASES: dict[str, Case] = {
    "x + 1": (between(lambda m, x: x + 1), NOT_ZERO),
    "x * 3": (between(lambda m, x: x * 3), GOES),
    "x / 3": (between(lambda m, x: x / 3), GOES),
    "3 / x": (between(lambda m, x: 3 / (x + 20)), NOT_ZERO),
    "x / other": (between(lambda m, x: x / (m.c(x).abs() + 1), c=c88), GOES),
    "x - other": (between(lambda m, x: x - m.c(x), c=c88), GOES),
    "sigmoid": (between(lambda m, x: x.sigmoid()), NOT_ZERO),
    "swish by hand": (between(by_hand_swish), GOES),
    "hardsigmoid in place": (between(lambda m, x: F.hardsigmoid(x, inplace=True)), NOT_ZERO),
    "hardswish in place": (between(lambda m, x: F.hardswish(x, inplace=True)), GOES),
    "sigmoid minus cosine": (between(sigmoids(torch.sub), c=c88), NOT_ZERO),
    "sigmoid equals cosine": (
        between(lambda m, x: sigmoids(torch.eq)(m, x).to(x), c=c88),
        NOT_ZERO,
    ),
    "softplus": (between(lambda m, x: F.softplus(x)), NOT_ZERO),
    "gelu": (between(lambda m, x: F.gelu(x)), GOES),
    "mish": (between(lambda m, x: F.mish(x)), GOES),
    "clamp above zero": (between(lambda m, x: x.clamp(0.1, 1)), NOT_ZERO),
    "clamp at six": (between(lambda m, x: x.clamp(0, 6)), GOES),
    "threshold": (between(lambda m, x: F.threshold(x, 0.1, 20)), NOT_ZERO),
    "power": (between(lambda m, x: x.pow(2)), GOES),
    "exp minus one": (between(lambda m, x: x.exp() - 1), NOT_ZERO),
    "where on itself": (between(lambda m, x: torch.where(x > 0, x, 0.1 * x)), GOES),
    "where on a mask": (between(masked), NOT_ZERO),
    "filled with zero": (between(masked_zero), GOES),
    "filled with one": (between(masked_one), NOT_ZERO),
    "lerp": (between(lambda m, x: torch.lerp(x, m.c(x), 0.3), c=c88), GOES),
    "addcmul": (between(lambda m, x: torch.addcmul(x, x, m.c(x)), c=c88), GOES),
    "maximum": (between(lambda m, x: torch.maximum(x, m.c(x)), c=c88), GOES),
    "atan2": (between(lambda m, x: torch.atan2(x, x + 30)), NOT_ZERO),
    "frexp": (between(lambda m, x: torch.frexp(x)[0]), {"a.weight": ""}),
    "squeeze and excite": (between(squeeze_excite, **SE), {"a.weight": None, "s.weight": None}),
    "gate of another tensor": (
        between(lambda m, x: x * m.e(m.s(x.mean((2, 3), keepdim=True)).relu()).sigmoid() + x, **SE),
        {"a.weight": None, "s.weight": None},
    ),
    "gate that is read": (
        between(lambda m, x: (g := m.e(x).sigmoid()) * x + m.s(g), s=c88, e=c88),
        {"a.weight": "is not zero", "e.weight": "is not zero"},
    ),
    "cbam": (
        between(cbam, **SE, p=lambda: conv(2, 1, 3)),
        {"a.weight": "across channels", "s.weight": None},
    ),
    "max over channels": (
        between(lambda m, x: x * x.amax(1, keepdim=True)),
        {"a.weight": "across channels"},
    ),
    "norm over channels": (
        between(lambda m, x: F.normalize(x, dim=1)),
        {"a.weight": "is not followed"},
    ),
    "softmax over channels": (between(lambda m, x: x * x.softmax(1)), {"a.weight": "softmax"}),
    "softmax over space": (between(space_attention), GOES),
    "matmul attention": (
        between(linear_attention, q=c88, k=c88),
        {"a.weight": "bmm", "q.weight": "bmm"},
    ),
    "einsum attention": (between(einsum_attention, q=c88, k=c88), {"a.weight": "", "q.weight": ""}),
    "scaled dot product": (between(sdpa), {"a.weight": "bmm"}),
    "a number from the width": (between(scale_of_width), {"a.weight": "something else depends on"}),
    "a weight as a value": (between(weight_as_value), {"a.weight": ""}),
    "numpy": (between(through_numpy), {"a.weight": ""}),
    "lists": (between(through_list), {"a.weight": ""}),
    "whole mean": (between(lambda m, x: x * x.mean()), {"a.weight": ""}),
    "whole max": (between(lambda m, x: x * x.max()), {"a.weight": ""}),
    "sum over channels": (between(lambda m, x: x * x.sum(1, keepdim=True)), {"a.weight": ""}),
    "std over space": (between(lambda m, x: x * x.std((2, 3), keepdim=True)), {"a.weight": ""}),
    "cumsum over space": (between(lambda m, x: x.cumsum(2)), {"a.weight": ""}),
    "fft": (between(lambda m, x: torch.fft.fft2(x).real), {"a.weight": ""}),
    "value decides": (between(lambda m, x: x if x.mean() > 0 else -x), {"a.weight": ""}),
    "cast and back": (between(lambda m, x: x.float().to(torch.float64)), GOES),
    "detach and clone": (between(lambda m, x: x.detach().clone() + x.data), {"a.weight": None}),
}
