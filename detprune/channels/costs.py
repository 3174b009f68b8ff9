"""Multiply-accumulate operations and parameters of a network as functions of its widths.

The cost of a convolution is proportional to the channels that it reads times those that it writes. So the cost of
every operation follows from that in the dense network (``torch.utils.flop_counter``), without the smaller network.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detprune.channels.groups import ChannelGroups
from detprune.channels.labels import Row
from detprune.channels.trace import Trace

Numbers = NDArray[np.float64]


class Costs:
    """Costs of the network as functions of the numbers of groups kept.

    Attributes:
        sizes: groups in a family of each tie, (ties,); at most these can be kept.
        operations: convolutions and linear layers, in order.
        rows: of every operation, the group of each channel that it reads, and that it writes.
        elements: numbers that all operations write, as a function of the groups kept, (…, ties) → (…).
    """

    def __init__(self, record: Trace, groups: ChannelGroups) -> None:
        self.sizes = groups.sizes
        self._tie_of_group = groups.tie_of_group
        self._fixed_macs = record.other_macs
        keys = [record.slices.items(), groups.slices.items()]
        numbers = {id(row): own for (_, row), (_, own) in zip(*keys, strict=True)}
        self.operations = record.operations
        self.rows = [[numbers[id(row)] for row in own.rows] for own in self.operations]
        self._macs = _Products([own.macs for own in self.operations], self.rows, self)
        written = [rows[-1:] for rows in self.rows]
        self.elements = _Products([own.elements for own in self.operations], written, self)
        by_name: dict[str, list[Row]] = {name: [] for name in record.parameters}
        for (name, _), row in groups.slices.items():
            if name in by_name:
                by_name[name].append(row)
        counts = [float(record.tensors[name].numel()) for name in by_name]
        self._parameters = _Products(counts, list(by_name.values()), self)

    def widths(self, row: Row) -> tuple[Numbers, float]:
        """Channels of a row per kept group of each tie, (ties,), and number of channels that always stay."""
        fixed, *ties = np.bincount(self._tie_of_group[row] + 1, minlength=len(self.sizes) + 1)
        return np.array(ties) / self.sizes, float(fixed)

    def macs(self, counts: Row) -> Numbers:
        """MACs of the network with ``counts`` groups kept per family of a tie, (…, ties) → (…)."""
        return self._fixed_macs + self._macs(counts)

    def parameters(self, counts: Row) -> Numbers:
        """Parameters of the network with ``counts`` groups kept per family of a tie, (…, ties) → (…)."""
        return self._parameters(counts)


class _Products:
    """Σ costs × Π (width kept / width), the products over the rows of each operation."""

    def __init__(self, costs: Sequence[float], rows: Sequence[Sequence[Row]], of: Costs) -> None:
        self._costs = np.array(costs, dtype=np.float64)
        most = max((len(own) for own in rows), default=0)
        ties = len(of.sizes)
        self._slopes = np.zeros((most, ties, len(rows)))
        self._offsets = np.ones((most, len(rows)))
        for number, own in enumerate(rows):
            for place, row in enumerate(own):
                slope, offset = of.widths(row)
                self._slopes[place, :, number] = slope / len(row)
                self._offsets[place, number] = offset / len(row)

    def __call__(self, counts: Row) -> Numbers:
        kept = np.asarray(counts, dtype=np.float64)
        total = np.broadcast_to(self._costs, (*kept.shape[:-1], len(self._costs)))
        for slopes, offsets in zip(self._slopes, self._offsets, strict=True):
            total = total * (kept @ slopes + offsets)
        return np.asarray(total.sum(-1))
