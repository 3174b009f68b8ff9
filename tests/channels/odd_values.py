"""Tiny networks with odd operations on values: in-place writes, shifts, gates, attention.

Every case: a function that makes (model, inputs), the weights that shrink, and for those that stay a part of
the reason.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from channel_checks import Net
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...]]
Expected = dict[str, str | None]
Case = tuple[Callable[[], Made], Expected] | tuple[Callable[[], Made], Expected, dict[str, Any]]
"""What makes the network; by weight, None if its channels can go, else a part of the reason why not; options."""


def image(channels: int = 3, size: int = 6, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, size, size)


def conv(ins: int, outs: int, kernel: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, kernel, padding=kernel // 2, **options)


def between(
    op: Callable[..., Tensor], mid: int = 8, wide: int = 8, **parts: Any
) -> Callable[[], Made]:
    """A convolution ``a`` with ``mid`` outputs, an operation, and a convolution ``b`` that reads ``wide``."""

    def make() -> Made:
        def run(m: Net, x: Tensor) -> Tensor:
            return m.b(op(m, m.a(x)))

        made = {
            k: v() if callable(v) and not isinstance(v, nn.Module) else v for k, v in parts.items()
        }
        return Net(run, a=conv(3, mid), b=conv(wide, 4), **made), (image(),)

    return make


def attribute(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def relu_on_half(m: Net, x: Tensor) -> Tensor:
    x[:, :4].relu_()
    return x


def sigmoid_on_half(m: Net, x: Tensor) -> Tensor:
    x[:, :4].sigmoid_()
    return x


def sigmoid_on_part(m: Net, x: Tensor) -> Tensor:
    x.chunk(2, 1)[0].sigmoid_()
    return x


def relu_on_part(m: Net, x: Tensor) -> Tensor:
    x.chunk(2, 1)[0].relu_()
    return x


def add_on_part(m: Net, x: Tensor) -> Tensor:
    one, other = x.chunk(2, 1)
    one.add_(other)
    return x


def shift_base_of_view(m: Net, x: Tensor) -> Tensor:
    view = x.flatten(2)
    x.add_(1)
    return view[..., None]


def shift_view_of_base(m: Net, x: Tensor) -> Tensor:
    x.permute(0, 2, 3, 1).add_(1)
    return x


def shift_data(m: Net, x: Tensor) -> Tensor:
    x.data.add_(1)
    return x


def fill_part(m: Net, x: Tensor) -> Tensor:
    x.chunk(2, 1)[1].fill_(0.5)
    return x


def zero_part(m: Net, x: Tensor) -> Tensor:
    x.chunk(2, 1)[1].zero_()
    return x


def copy_into_slices(m: Net, x: Tensor) -> Tensor:
    whole = x.new_zeros(x.shape[0], 16, *x.shape[2:])
    whole[:, :8] = x
    whole[:, 8:] = x.relu()
    return whole


def copy_into_like(m: Net, x: Tensor) -> Tensor:
    whole = torch.zeros_like(x)
    whole.copy_(x)
    return whole


def copy_onto(m: Net, x: Tensor) -> Tensor:
    whole = m.c(x)
    whole.copy_(x)
    return whole


def set_rows(m: Net, x: Tensor) -> Tensor:
    x[:, :, 0] = 2.0
    return x


def set_rows_zero(m: Net, x: Tensor) -> Tensor:
    x[:, :, 0].mul_(0.5)
    return x


def index_put(m: Net, x: Tensor) -> Tensor:
    x[:, torch.tensor([1, 3])] = 1.0
    return x


def out_relu(m: Net, x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    torch.add(x, x, out=result)
    return result


def out_shift(m: Net, x: Tensor) -> Tensor:
    torch.add(x, 1.0, out=x)
    return x


def out_into_view(m: Net, x: Tensor) -> Tensor:
    half = x[:, :4]
    torch.cos(x[:, 4:], out=half)
    return x


def out_cat_into(m: Net, x: Tensor) -> Tensor:
    y = m.c(x)
    torch.cat([x, x], 1, out=y)
    return y


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


def c88() -> nn.Module:
    return conv(8, 8)


GOES: dict[str, str | None] = {"a.weight": None}
NOT_ZERO = {"a.weight": "is not zero when its weights are"}
SE = {"s": lambda: conv(8, 4), "e": lambda: conv(4, 8)}

CASES: dict[str, Case] = {
    "relu on half": (between(relu_on_half), {"a.weight": "is cut at a fixed place"}),
    "sigmoid on half": (between(sigmoid_on_half), {"a.weight": "is cut at a fixed place"}),
    "sigmoid on a part": (
        between(sigmoid_on_part),
        {"a.weight": "changed in place through a view"},
    ),
    "relu on a part": (between(relu_on_part), GOES),
    "add on a part": (between(add_on_part), GOES),
    "shift the base of a view": (between(shift_base_of_view), {"a.weight": "changed in place"}),
    "shift a view": (between(shift_view_of_base), {"a.weight": "changed in place"}),
    "shift .data": (between(shift_data), {"a.weight": ""}),
    "fill a part": (between(fill_part), {"a.weight": ""}),
    "zero a part": (between(zero_part), GOES),
    "copies into slices of zeros": (between(copy_into_slices, wide=16), {"a.weight": ""}),
    "copy into zeros_like": (between(copy_into_like), GOES),
    "copy onto another": (between(copy_onto, c=c88), GOES),
    "set rows": (between(set_rows), {"a.weight": ""}),
    "scale rows": (between(set_rows_zero), GOES),
    "index_put": (between(index_put), {"a.weight": "index_fill_"}),
    "out= of a sum": (between(out_relu), GOES),
    "out= onto itself": (between(out_shift), NOT_ZERO),
    "out= into a view": (between(out_into_view), {"a.weight": "cut at a fixed place"}),
    "cat(out=)": (
        between(out_cat_into, wide=16, c=lambda: conv(8, 16)),
        {"a.weight": "cat, which is not"},
    ),
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
