"""What the tables of tiny networks are made of.

Every case: what makes (model, inputs), the weights that shrink, and for those that stay a part of the reason.
"""

from collections.abc import Callable
from typing import Any

import torch
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


def c88() -> nn.Module:
    return conv(8, 8)


GOES: dict[str, str | None] = {"a.weight": None}


NOT_ZERO = {"a.weight": "is not zero when its weights are"}


def sequential(
    *layers: Callable[[], nn.Module], inputs: Callable[[], Any] = image
) -> Callable[[], Made]:
    return lambda: (nn.Sequential(*(layer() for layer in layers)), (inputs(),))


def sizes(n: int = 1, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, n, *shape)


def of_parameter(shape: tuple[int, ...]) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


STAYS: dict[str, str | None] = {"a.weight": ""}
