"""Tiny networks that write into tensors in place, into views and slices; see ``odd_parts.py``."""

import torch
from channel_checks import Net
from odd_parts import GOES, NOT_ZERO, Case, between, c88, conv
from torch import Tensor


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
    "index_put": (between(index_put), {"a.weight": "which is not followed"}),
    "out= of a sum": (between(out_relu), GOES),
    "out= onto itself": (between(out_shift), NOT_ZERO),
    "out= into a view": (between(out_into_view), {"a.weight": "cut at a fixed place"}),
    "cat(out=)": (
        between(out_cat_into, wide=16, c=lambda: conv(8, 16)),
        {"a.weight": "cat, which is not"},
    ),
}
