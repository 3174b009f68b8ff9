"""Networks as inference runs them; adapters register a function for their classes of networks."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn

from detprune.channels import Forward
from detprune.channels.coupled import call
from detprune.errors import InputError
from detprune.files import machine_memory

_BYTES = 4  # size of a float32 value


def nothing(network: nn.Module) -> None:
    """Leave a network as it is: the default of ``finish``."""


@dataclass(frozen=True)
class Deployed:
    """A network as inference runs it.

    Attributes:
        counted: the network whose parameters count.
        timed: the network that is run and exported; it is called with the inputs.
        stride: height and width of images are multiples of it.
        size: the only height and width that it takes; None: any.
        forward: how the network itself is run to follow its channels.
        finish: updates what the network stores of its widths, after channels were removed.
    """

    counted: nn.Module
    timed: nn.Module
    stride: int = 1
    size: tuple[int, int] | None = None
    forward: Forward = call
    finish: Callable[[nn.Module], None] = nothing

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that the network does not take.

        Raises:
            InputError: with the sizes that it takes.
        """
        if self.size is not None and (height, width) != self.size:
            raise InputError(
                f"size is {height} × {width}, but this network only takes images of {self.size[0]} × {self.size[1]} "
                "pixels; leave --size out"
            )
        if min(height, width) < 1 or height % self.stride or width % self.stride:
            near = max(self.stride, round(height / self.stride) * self.stride)
            raise InputError(
                f"size is {height}; it has to be a multiple of the network's stride {self.stride}, such as {near}"
            )


@singledispatch
def deployed(network: nn.Module) -> Deployed:
    """A copy of a network in evaluation mode, as inference runs it; the network itself does not change."""
    plain = copy.deepcopy(network).eval()
    return Deployed(plain, plain)


def sized(
    network: Deployed, inputs: Sequence[object], side: int | None, batch: int
) -> tuple[Tensor, ...]:
    """Noise in the shapes of example inputs, with the given batch size, and with the given image size if any.

    Args:
        network: says which sizes it takes.
        inputs: tensors whose first dimension counts samples; images are (N, channels, height, width).
        side: side of square images, in pixels; None: that of the inputs.
        batch: samples.

    Raises:
        InputError: inputs other than tensors, a size for inputs that are no images, one that the network does
            not take, or more than the machine's memory.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for value in inputs:
        if not isinstance(value, Tensor) or value.dim() == 0:
            raise InputError(
                f"the network is called with a {type(value).__name__}; only tensors can be measured"
            )
        shape = [batch, *value.shape[1:]]
        if side is not None:
            if len(shape) != 4:
                raise InputError(
                    f"size is {side}, but the network is called with a tensor of shape {tuple(value.shape)}, "
                    "which is no image; leave --size out"
                )
            shape[2:] = [side, side]
        if len(shape) == 4:
            network.check_size(shape[2], shape[3])
        memory, needed = machine_memory(), math.prod(shape) * _BYTES
        if memory is not None and needed > memory:
            raise InputError(
                f"inputs of shape {tuple(shape)} have {needed:,} bytes, but this machine has a memory of {memory:,}; "
                "give a smaller size or batch"
            )
        tensors.append(
            torch.rand(shape, generator=generator)
            if value.is_floating_point()
            else value[:1].expand(shape).clone()
        )
    return tuple(tensors)
