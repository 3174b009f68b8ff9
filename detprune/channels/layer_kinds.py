"""Kinds of layers: all that the time of a layer depends on, besides its numbers of channels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LINEAR = "linear"


@dataclass(frozen=True)
class LayerKind:
    """A layer without its numbers of channels.

    Attributes:
        operation: ``conv2d``, ``conv_transpose2d``, ``linear``, …
        batch: samples; for a linear layer, rows that it is applied to.
        size: height and width of the input; empty for a linear layer.
        kernel, stride, padding, dilation: of a convolution, each with one number per dimension.
        group: input and output channels of each group of a grouped convolution; empty for all others.
    """

    operation: str
    batch: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    group: tuple[int, ...] = ()

    @classmethod
    def of_convolution(cls, args: Sequence[Any]) -> "LayerKind | None":
        """The kind of a call of ``aten.convolution``; None for those whose time is not measured alone."""
        x, weight, _, stride, padding, dilation, transposed, output_padding, groups = args[:9]
        dims = weight.dim() - 2
        if not 1 <= dims <= 3 or any(output_padding) or (transposed and groups > 1):
            return None
        names = TRANSPOSED if transposed else CONVOLUTIONS
        out_per_group = weight.shape[0] // groups
        return cls(
            names[dims - 1],
            int(x.shape[0]),
            tuple(x.shape[2:]),
            tuple(weight.shape[2:]),
            _each(stride, dims),
            _each(padding, dims),
            _each(dilation, dims),
            (int(weight.shape[1]), int(out_per_group)) if groups > 1 else (),
        )

    @classmethod
    def of_linear(cls, x: Tensor) -> "LayerKind":
        """The kind of a linear layer of an input."""
        return cls(LINEAR, x.shape[:-1].numel())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without those that do not apply."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {key: value for key, value in values.items() if value != []}

    def __str__(self) -> str:
        by = "x".join(map(str, self.kernel))
        step = f", stride {'x'.join(map(str, self.stride))}" if set(self.stride) - {1} else ""
        groups = ", grouped" if self.group else ""
        size = f" on {'x'.join(map(str, self.size))}" if self.size else ""
        return f"{self.operation} {by}{step}{groups}{size}".replace("  ", " ")


def _each(numbers: Sequence[int], dims: int) -> tuple[int, ...]:
    return tuple(numbers) if len(numbers) == dims else tuple(numbers) * dims
