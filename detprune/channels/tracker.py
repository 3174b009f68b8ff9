"""The channels of the tensors that are alive while a network runs, and what reads and writes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from detprune.channels.labels import Row
from detprune.channels.trace import Channels, Operation, Trace, single_dim


class Tracker:
    """The channels of the tensors that are alive while a network runs."""

    def __init__(self, record: Trace, strict: bool) -> None:
        self.record = record
        self.strict = strict
        self.paused = False
        self.counting = True
        self.function = ""
        self.arguments: Sequence[object] = ()
        self._known = WeakIdKeyDictionary()
        self._names = {id(tensor): name for name, tensor in record.tensors.items()}

    def name(self, value: object) -> str | None:
        """The name of a parameter or buffer of the model; None for all else."""
        return self._names.get(id(value))

    def channels(self, value: object) -> Channels | None:
        """What is known of a tensor's channels. A parameter that is a vector numbers channels of its own."""
        if not isinstance(value, Tensor):
            return None
        known: Channels | None = self._known.get(value)
        if known is None and (name := self.name(value)) is not None:
            dim = single_dim(value)
            if dim is not None:
                row = self.record.new_channels(name, dim)
                parameter = isinstance(value, nn.Parameter)
                written = (self.record.write if parameter else self.record.slice)(name, dim, row)
                sources = frozenset([written]) if parameter else frozenset[tuple[str, int]]()
                known = self._known[value] = Channels(row, dim, parameter, sources)
        return known

    def know(self, tensor: Tensor, channels: Channels | None) -> None:
        """Note the channels of a result; a single channel always stays."""
        if channels is None or tensor.shape[channels.dim] < 2:
            self._known.pop(tensor, None)
        else:
            self._known[tensor] = channels

    def freeze(self, value: object, reason: str) -> None:
        """Keep the channels of a tensor, and of every dimension of a weight that is used in a way not known."""
        channels = self.channels(value)
        if channels is not None:
            self.record.labels.freeze(channels.row, reason)
        elif isinstance(value, Tensor) and (name := self.name(value)) is not None:
            for dim in range(value.dim()):
                size = value.shape[dim]
                self.record.slice(name, dim, self.record.labels.new(size, reason))

    def freeze_all(self, values: object, reason: str) -> None:
        """``freeze`` for everything in nested arguments."""
        for leaf in tree_leaves(values):
            self.freeze(leaf, reason)

    def row_of(self, value: object, dim: int, reason: str) -> tuple[Row, Channels | None]:
        """Labels along a dimension, which is the only one that may number channels; else labels that stay."""
        channels = self.channels(value)
        if channels is not None and channels.dim == dim:
            return channels.row, channels
        self.freeze(value, reason)
        if not isinstance(value, Tensor):
            raise TypeError("only tensors have channels")
        return self.record.labels.new(value.shape[dim], "reads a tensor of fixed width"), None

    def read(self, name: str, dim: int, value: object, along: int) -> Row:
        """Note that a weight sums over the channels of a tensor, which have to be zero before they can go."""
        row, channels = self.row_of(value, along, f"is read by {name} along another dimension")
        if channels is not None and not channels.zero:
            self.record.labels.freeze(
                row, f"is not zero when its weights are, and is read by {name}"
            )
        if channels is not None:
            self.record.required |= channels.sources
        self.record.slice(name, dim, row)
        self.record.read.append(row)
        return row

    def write_vector(self, vector: object, row: Row) -> frozenset[tuple[str, int]] | None:
        """Note a bias or a scale; None where it is no parameter, so that it cannot be held at zero."""
        name = self.name(vector)
        if name is None or not isinstance(vector, nn.Parameter):
            return None
        return frozenset([self.record.write(name, 0, row)])

    def count(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: object) -> None:
        """Add up what operations cost that are neither convolutions nor linear layers."""
        if self.counting and func is not torch.ops.aten.convolution.default:
            self.record.other_macs += _macs(func.overloadpacket, args, kwargs, out)

    def linear(self, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> None:
        """y = x Wᵀ + b."""
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        name = self.name(weight)
        macs = math.prod(x.shape[:-1]) * weight.shape[0] * weight.shape[1]
        if name is None or not isinstance(weight, nn.Parameter):
            self.freeze_all((x, weight, bias), "is read by a weight that is no parameter")
            self.record.other_macs += macs if self.counting else 0.0
            return
        inputs = self.read(name, 1, x, x.dim() - 1)
        self._written(name, 0, bias, out, out.dim() - 1, frozenset())
        outputs = self.record.slices[name, 0]
        self._cost(name, macs, inputs, outputs)

    def _cost(self, name: str, macs: float, *rows: Row) -> None:
        if self.counting:
            self.record.operations.append(Operation(name, macs, rows))

    def _written(
        self,
        name: str,
        dim: int,
        bias: object,
        out: Tensor,
        along: int,
        sources: frozenset[tuple[str, int]],
    ) -> None:
        """A weight whose index along ``dim`` is a channel of the result."""
        row = self.record.new_channels(name, dim)
        sources |= {self.record.write(name, dim, row)}
        if bias is not None:
            own = self.write_vector(bias, row)
            if own is None:
                self.record.labels.freeze(row, f"{name} has a bias that is no parameter")
            sources |= own or frozenset()
        self.know(out, Channels(row, along, True, sources))

    def convolution(self, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> None:
        """Convolution and transposed convolution, of any number of groups."""
        x, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
        name = self.name(weight)
        macs = _macs(torch.ops.aten.convolution, args, kwargs, out)
        if name is None or not isinstance(weight, nn.Parameter):
            self.freeze_all((x, weight, bias), "is read by a weight that is no parameter")
            self.record.other_macs += macs if self.counting else 0.0
            return
        if groups == 1:
            inputs = self.read(name, 0 if transposed else 1, x, 1)
            self._written(name, 1 if transposed else 0, bias, out, 1, frozenset())
            outputs = self.record.slices[name, 1 if transposed else 0]
            self._cost(name, macs, inputs, outputs)
            return
        outputs = self._grouped(name, x, weight, bias, groups, transposed, out)
        self._cost(name, macs, outputs)

    def _grouped(
        self,
        name: str,
        x: Tensor,
        weight: Tensor,
        bias: object,
        groups: int,
        transposed: bool,
        out: Tensor,
    ) -> Row:
        """Whole groups go: the channels that one reads and those that it writes are one class."""
        labels = self.record.labels
        inputs, channels = self.row_of(x, 1, f"is read by {name} along another dimension")
        row = (
            labels.new(out.shape[1])
            if transposed or (name, 0) not in self.record.slices
            else self.record.slices[name, 0]
        )
        for ins, outs in zip(inputs.reshape(groups, -1), row.reshape(groups, -1), strict=True):
            labels.unite_all(np.concatenate([ins, outs]))
        if not isinstance(self.record.owners[name], CONVOLUTIONS):
            labels.freeze(row, f"{name} is grouped, and its module is no convolution")
        sources = {self.record.write(name, 0, inputs if transposed else row)}
        if channels is not None:
            sources |= channels.sources
        if bias is not None:
            own = self.write_vector(bias, row)
            if own is None:
                labels.freeze(row, f"{name} has a bias that is no parameter")
            sources |= own or frozenset()
        self.know(out, Channels(row, 1, True, frozenset(sources)))
        return row


CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def _macs(packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: object) -> float:
    formula = flop_registry.get(packet)
    return 0.0 if formula is None else float(formula(*args, **kwargs, out_val=out)) / 2
