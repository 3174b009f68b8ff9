"""The record of a run of a network: which entries of which tensors belong to one channel."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from detprune.channels.labels import Labels, Row
from detprune.channels.layer_kinds import LayerKind


@dataclass(frozen=True)
class Channels:
    """The channels of a tensor, as far as they are known.

    Attributes:
        row, dim: labels of the channels, and the dimension that they number.
        zero: whether a channel is 0 everywhere once all weights that write it are zero.
        sources: the tensors, as (name, dim), that have to be zero for that.
    """

    row: Row
    dim: int
    zero: bool
    sources: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Operation:
    """A convolution or a linear layer that ran; its cost is proportional to its widths.

    Attributes:
        name: name of the weight.
        macs: multiply-accumulate operations of the layer at full width.
        rows: labels of the widths that the cost is proportional to; the last one is that of the outputs.
        kind: what its time depends on besides; None where its time is not measured alone.
        elements: numbers that it writes at full width.
    """

    name: str
    macs: float
    rows: tuple[Row, ...]
    kind: LayerKind | None
    elements: int


@dataclass
class Trace:
    """The record of a run.

    Attributes:
        labels: classes of channels.
        tensors: the model's parameters and buffers by name.
        owners: name of a parameter or buffer → its module.
        slices: (name, dim) → labels of that dimension of a parameter or buffer.
        written: slices whose zeros make a channel zero, in order of first use.
        required: written slices that have to be zero; the others are only removed with the channel.
        read: labels that a convolution or a linear layer reads.
        chunks: the parts of every cut into equal parts.
        operations: costs of convolutions and linear layers.
        other_macs: MACs of all other operations.
        seen: names of parameters and buffers that took part.
    """

    tensors: dict[str, Tensor]
    owners: dict[str, nn.Module]
    labels: Labels = field(default_factory=Labels)
    slices: dict[tuple[str, int], Row] = field(default_factory=dict)
    written: dict[tuple[str, int], None] = field(default_factory=dict)
    required: set[tuple[str, int]] = field(default_factory=set)
    read: list[Row] = field(default_factory=list)
    chunks: list[tuple[Row, ...]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    other_macs: float = 0.0
    seen: set[str] = field(default_factory=set)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters."""
        return [name for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)]

    @property
    def unused(self) -> list[str]:
        """Names of the parameters that took no part."""
        return [name for name in self.parameters if name not in self.seen]

    def slice(self, name: str, dim: int, row: Row) -> tuple[str, int]:
        """Note the labels of a dimension of a tensor."""
        known = self.slices.setdefault((name, dim), row)
        if known is not row:
            self.labels.unite(known, row)
        return name, dim

    def new_channels(self, name: str, dim: int) -> Row:
        """Labels of the channels that a tensor writes; they are the same at every use."""
        known = self.slices.get((name, dim))
        size = self.tensors[name].shape[dim]
        return self.labels.new(size) if known is None else known

    def write(self, name: str, dim: int, row: Row) -> tuple[str, int]:
        """Note that zeros at an index of a parameter make the channel of that index zero."""
        written = self.slice(name, dim, row)
        self.written.setdefault(written)
        return written


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module]]:
    """Parameters and buffers with their first name and their module."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for own in (module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            for local, tensor in own:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{prefix}.{local}" if prefix else local), tensor, module


def single_dim(tensor: Tensor) -> int | None:
    """The only dimension of a tensor that has a size above 1."""
    dims = [dim for dim, size in enumerate(tensor.shape) if size > 1]
    return dims[0] if len(dims) == 1 else None
