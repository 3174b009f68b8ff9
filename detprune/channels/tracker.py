"""The channels of the tensors that are alive while a network runs, and what reads and writes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from detprune.channels.labels import Row
from detprune.channels.layer_kinds import LayerKind
from detprune.channels.trace import Channels, Operation, Trace, single_dim


class Tracker:
    """The channels of the tensors that are alive while a network runs.

    Attributes:
        record: the record of the run so far.
        paused: whether operations are parts of one that has been followed as a whole.
        counting: whether operations add to the costs: only in the first run.
        function: name of the call that the present operation is a part of.
        reads_values: whether Python has looked at a number that depends on the inputs.
        layers_run: names of weights, in the order in which their layers ran.
    """

    def __init__(self, record: Trace) -> None:
        self.record = record
        self.paused = False
        self.counting = True
        self.function = ""
        self.reads_values = False
        self.layers_run: list[str] = []
        self._known = WeakIdKeyDictionary()
        self._of_inputs = WeakIdKeyDictionary()
        self._names = WeakIdKeyDictionary()
        for name, tensor in record.tensors.items():
            self._names[tensor] = name

    def name(self, value: object) -> str | None:
        """The name of a parameter or buffer of the model; None for any other value."""
        name: str | None = self._names.get(value) if isinstance(value, Tensor) else None
        return name

    def parameter(self, value: object) -> str | None:
        """The name of a parameter, or of the parameter that a tensor is a copy of; None for any other value."""
        name = self.name(value)
        return name if name is not None and self.is_parameter(name) else None

    def is_parameter(self, name: str) -> bool:
        """Whether a name is that of a parameter, not of a buffer."""
        return isinstance(self.record.tensors[name], nn.Parameter)

    def same_name(self, out: Tensor, value: object) -> None:
        """Note that a tensor holds the values of a parameter: it is detached, or of another dtype."""
        if (name := self.name(value)) is not None:
            self._names[out] = name

    def channels(self, value: object) -> Channels | None:
        """The known channels of a tensor, or None. A parameter that is a vector numbers channels of its own."""
        if not isinstance(value, Tensor):
            return None
        known: Channels | None = self._known.get(value)
        if known is None and (name := self.name(value)) is not None:
            dim = single_dim(value)
            if dim is not None:
                row = self.record.new_channels(name, dim)
                parameter = self.is_parameter(name)
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
        """Let the channels of a tensor stay; of a weight that is used in an unknown way, those of every dimension."""
        channels = self.channels(value)
        if channels is not None:
            self.record.labels.freeze(channels.row, reason)
        elif isinstance(value, Tensor) and (name := self.name(value)) is not None:
            for dim in range(value.dim()):
                size = value.shape[dim]
                self.record.slice(name, dim, self.record.labels.new(size, reason))

    def freeze_odd_use(self, value: object, operation: str) -> None:
        """Let all channels of a matrix or kernel stay if an operation other than its own layer's uses it."""
        if operation in _USES_OF_WEIGHTS or self.name(value) is None:
            return
        if self.channels(value) is None:
            self.freeze(value, f"is used by {operation}, which is not followed")

    def depends_on_inputs(self, values: Sequence[object]) -> None:
        """Note tensors whose values depend on the network's inputs."""
        for value in values:
            if isinstance(value, Tensor):
                self._of_inputs[value] = True

    def is_of_inputs(self, value: object) -> bool:
        """Whether a value is a tensor that depends on the network's inputs."""
        return isinstance(value, Tensor) and value in self._of_inputs

    def alive(self) -> list[Tensor]:
        """Results that something still refers to."""
        return [tensor for tensor in self._known if self.name(tensor) is None]

    def forget(self, values: object) -> None:
        """Forget the channels of tensors that were changed in a way that is not followed."""
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor) and self.name(leaf) is None:
                self._known.pop(leaf, None)

    def freeze_all(self, values: object, reason: str) -> None:
        """``freeze`` for everything in nested arguments."""
        for leaf in tree_leaves(values):
            self.freeze(leaf, reason)

    def row_of(self, value: object, dim: int, reason: str) -> tuple[Row, Channels | None]:
        """The tensor's labels if ``dim`` numbers its channels; else its channels stay, and so do the new labels."""
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
        return self.record.slices[name, dim]

    def write_vector(self, vector: object, row: Row) -> frozenset[tuple[str, int]] | None:
        """Note a bias or a scale; return None if it is no parameter, so that it cannot be held at zero."""
        if (name := self.parameter(vector)) is not None:
            return frozenset([self.record.write(name, 0, row)])
        channels = self.channels(vector)
        if channels is None or len(channels.row) != len(row):
            return None
        self.record.labels.unite(channels.row, row)
        return channels.sources if channels.zero else None

    def count(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: object) -> None:
        """Add the cost of an operation that is neither a convolution nor a linear layer."""
        if self.counting and func is not torch.ops.aten.convolution.default:
            self.record.other_macs += _macs(func.overloadpacket, args, kwargs, out)

    def linear(self, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> None:
        """y = x Wᵀ + b."""
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        name = self.parameter(weight) if weight.dim() == 2 else None
        macs = math.prod(x.shape[:-1]) * weight.numel()
        if name is None:
            self.freeze_all((x, weight, bias), "is read by a weight that is no parameter")
            self.record.other_macs += macs if self.counting else 0.0
            return
        inputs = self.read(name, 1, x, x.dim() - 1)
        self._written(name, 0, bias, out, out.dim() - 1, frozenset())
        outputs = self.record.slices[name, 0]
        self._cost(name, macs, (inputs, outputs), LayerKind.of_linear(x), out)

    def _cost(
        self, name: str, macs: float, rows: tuple[Row, ...], kind: LayerKind | None, out: Tensor
    ) -> None:
        self.layers_run.append(name)
        if self.counting:
            self.record.operations.append(Operation(name, macs, rows, kind, out.numel()))

    def _written(
        self,
        name: str,
        dim: int,
        bias: object,
        out: Tensor,
        along: int,
        sources: frozenset[tuple[str, int]],
    ) -> None:
        """Note a weight whose index along ``dim`` is a channel of the result."""
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
        name = self.parameter(weight)
        macs = _macs(torch.ops.aten.convolution, args, kwargs, out)
        if name is None:
            self.freeze_all((x, weight, bias), "is read by a weight that is no parameter")
            self.record.other_macs += macs if self.counting else 0.0
            return
        kind = LayerKind.of_convolution(args)
        if groups == 1:
            inputs = self.read(name, 0 if transposed else 1, x, 1)
            self._written(name, 1 if transposed else 0, bias, out, 1, frozenset())
            outputs = self.record.slices[name, 1 if transposed else 0]
            self._cost(name, macs, (inputs, outputs), kind, out)
            return
        outputs = self._grouped(name, x, weight, bias, groups, transposed, out)
        self._cost(name, macs, (outputs,), kind, out)

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
        """Grouped convolution: whole groups are removed, so the channels that one reads and writes are one class."""
        labels = self.record.labels
        inputs, channels = self.row_of(x, 1, f"is read by {name} along another dimension")
        row = (
            labels.new(out.shape[1])
            if transposed or (name, 0) not in self.record.slices
            else self.record.slices[name, 0]
        )
        for ins, outs in zip(inputs.reshape(groups, -1), row.reshape(groups, -1), strict=True):
            labels.unite_all(np.concatenate([ins, outs]))
        if not isinstance(self.record.owners[name], _ConvNd):
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
        return self.record.slices[name, 0]


def arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, with their defaults."""
    schema = func._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given |= {argument.name: value for argument, value in zip(schema, args, strict=False)}
    return given | dict(kwargs)


_USES_OF_WEIGHTS = ("convolution", "detach", "_to_copy", "alias")


def _macs(packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: object) -> float:
    formula = flop_registry.get(packet)
    return 0.0 if formula is None else float(formula(*args, **kwargs, out_val=out)) / 2
