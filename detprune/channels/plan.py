"""The plan of a network's channels: how many can be removed, how many stay, and why."""

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from detprune.channels.bound import BoundChannels
from detprune.channels.costs import Costs
from detprune.channels.trace import Trace

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerPlan:
    """The plan of the channels that one weight writes.

    Attributes:
        name: name of the weight.
        channels, removable, kept: numbers of all channels, of those that could be removed, and of those that stay.
        coupled_with: the other weights that write the same channels.
        reasons: reasons why channels cannot be removed, each with the number of these channels.
    """

    name: str
    channels: int
    removable: int
    kept: int
    coupled_with: tuple[str, ...]
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ChannelPlan:
    """The plan of all layers of a network; shares are of the dense network's MACs and parameters."""

    layers: tuple[LayerPlan, ...]
    macs: float
    macs_left: float
    parameters: int
    parameters_left: int

    @classmethod
    def of(cls, bound: BoundChannels, record: Trace, costs: Costs) -> "ChannelPlan":
        """The plan of a set that is bound to a network."""
        groups = bound.groups
        writers: dict[int, list[str]] = {}
        for member in groups.members:
            if record.tensors[member.name].dim() > 1:
                for number in groups.families_of(member.groups):
                    writers.setdefault(number, []).append(member.name)
        layers = []
        for (name, dim), reasons in groups.reasons.items():
            row = groups.slices[name, dim]
            coupled = dict[str, None]()
            for number in groups.families_of(row):
                coupled |= dict.fromkeys(writers.get(number, []))
            coupled.pop(name, None)
            removable = int((row >= 0).sum())
            layers.append(
                LayerPlan(
                    name,
                    len(row),
                    removable,
                    len(row) - round(bound.gone(row)),
                    tuple(coupled),
                    tuple(reasons.items()),
                )
            )
        return cls(
            tuple(layers),
            float(costs.macs(costs.sizes)),
            float(costs.macs(bound.counts)),
            round(float(costs.parameters(costs.sizes))),
            round(float(costs.parameters(bound.counts))),
        )

    def table(self) -> "Table":
        """The plan as a table for a terminal."""
        from rich.table import Table  # imported here, because only printing needs rich

        table = Table(title="Channels: how many there are, could go, and stay")
        table.add_column("weight")
        for column in ("channels", "removable", "kept"):
            table.add_column(column, justify="right")
        table.add_column("why the others stay; coupled with")
        for layer in self.layers:
            notes = [f"{count}: {reason}" for reason, count in layer.reasons]
            if layer.coupled_with:
                some = ", ".join(layer.coupled_with[:2])
                more = len(layer.coupled_with) - 2
                notes.append(f"with {some}" + (f" and {more} more" if more > 0 else ""))
            table.add_row(
                layer.name,
                str(layer.channels),
                str(layer.removable),
                str(layer.kept),
                "; ".join(notes),
            )
        table.add_section()
        for what, dense, left in (
            ("MACs, million", self.macs / 1e6, self.macs_left / 1e6),
            ("parameters, million", self.parameters / 1e6, self.parameters_left / 1e6),
        ):
            share = f"{left / dense:.3f} of the dense network's"
            table.add_row(what, f"{dense:,.2f}", "", f"{left:,.2f}", share)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()  # not the terminal, which may be closed or limited to ASCII
        Console(file=text, width=140, markup=False).print(self.table())
        return text.getvalue()
