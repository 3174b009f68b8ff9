"""The table of a network: which layers have to be measured at which widths, and their measurement here."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track
from torch import Tensor, nn

from detprune.budgets import Budget
from detprune.channels import BoundChannels, CoupledChannels
from detprune.channels.latency import dense_widths
from detprune.channels.latency_table import LatencyTable, LayerTimes, NetworkTime
from detprune.channels.layer_kinds import LayerKind
from detprune.channels.removal import removed
from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.latency_targets import LatencyTarget
from detprune.run.export.onnx_files import write_onnx
from detprune.run.latency.cache import Cache
from detprune.run.latency.single_layers import channels_read, write_layer
from detprune.run.latency.timing import environment_of, layer_ms, network_times
from detprune.run.measuring.deployment import Deployed, deployed, sized

KEEPS = (1.0, 0.6, 0.3)
"""Shares of the channels of every layer at which the whole network is measured."""

_POINTS = 4
"""Most widths of a layer at which it is measured, on either side."""

_PASSES = 2  # far apart, so that other load does not meet a layer twice
_REPAIRS = 4  # most passes over layers that were disturbed
_LATE = 1.3  # times what the other layers of the kind allow

Entry = tuple[LayerKind, int, int]
"""A kind of layer with channels that are read and written."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network to be measured.

    Attributes:
        model: the network; it does not change.
        channels: its set, with example inputs of the target's size.
        budget: limits on the channels that can go.
        finish: updates what a network stores of its widths, after channels were removed.
    """

    model: nn.Module
    channels: CoupledChannels
    budget: Budget
    finish: Callable[[nn.Module], None]

    @classmethod
    def on(
        cls,
        target: LatencyTarget,
        model: nn.Module,
        channels: CoupledChannels,
        budget: Budget,
        finish: Callable[[nn.Module], None] = lambda network: None,
    ) -> "Subject":
        """The network with inputs of a target's image size and batch.

        Raises:
            InputError: inputs that are no tensors, or a size that the network does not take.
        """
        given = channels.inputs_for(model)
        inputs = sized(deployed(model), given, target.size, target.batch)
        return cls(model, dataclasses.replace(channels, example_inputs=inputs), budget, finish)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the network on the CPU."""
        given = self.channels.inputs_for(self.model)
        return tuple(value.cpu() for value in given if isinstance(value, Tensor))

    def deployed(self) -> Deployed:
        """The dense network as inference runs it."""
        return deployed(self.model)

    def without_channels(self, bound: BoundChannels) -> Deployed:
        """The network with as many channels as a set keeps, as inference runs it; untrained, for its time alone."""
        weights = dict(self.model.named_parameters())
        norms = bound.squared_norms([weights[name].detach() for name in bound.names])
        small = removed(self.model, bound.kept_indices(bound.chosen(norms)))
        self.finish(small)
        return deployed(small)

    def at_share(self, keep: float) -> Deployed:
        """The network with a share of the channels of every layer."""
        if keep == 1:
            return self.deployed()
        stated = Budget(sparsity=1 - keep, include=self.budget.include, exclude=self.budget.exclude)
        return self.without_channels(self.channels.bind(self.model, stated))


def empty_table(subject: Subject, target: LatencyTarget) -> LatencyTable:
    """The table of a network without times."""
    costs = subject.channels.traced(subject.model, subject.budget)
    layers: dict[Entry, LayerTimes] = {}
    for number, operation in enumerate(costs.operations):
        if operation.kind is None:
            continue
        inputs, outputs = dense_widths(costs, number)
        key = operation.kind, inputs, outputs
        own = layers.get(key)
        if own is not None:
            layers[key] = dataclasses.replace(own, weights=(*own.weights, operation.name))
            continue
        step = subject.channels.round_to
        reads = (inputs,) if operation.kind.group else _points(inputs, step)
        unit = math.lcm(step, operation.kind.group[1]) if operation.kind.group else step
        writes = _points(outputs, unit)
        empty = np.full((len(reads), len(writes)), math.nan)
        layers[key] = LayerTimes((operation.name,), operation.kind, reads, writes, empty)
    if not layers:
        raise InputError(
            "no layer of this network can be measured alone; give macs= in place of latency="
        )
    options = {k: v for k, v in dataclasses.asdict(target).items() if v is not None}
    return LatencyTable(
        options,
        "",
        tuple(tuple(value.shape) for value in subject.inputs),
        subject.channels.round_to,
        tuple(NetworkTime(keep, None) for keep in KEEPS),
        tuple(layers.values()),
    )


def _points(width: int, step: int) -> tuple[int, ...]:
    """Some multiples of a step up to a width, and the width itself."""
    parts = [width * part / _POINTS for part in range(1, _POINTS + 1)]
    rounded = {max(step, round(part / step) * step) for part in parts}
    return tuple(sorted({min(width, value) for value in rounded} | {width}))


def fill(
    table: LatencyTable, subject: Subject, target: LatencyTarget, cache: Cache | None = None
) -> LatencyTable:
    """Measure all times of a table here; those of layers that the cache knows are taken from it.

    Raises:
        InputError: the target cannot be used here.
    """
    environment = environment_of(target)
    cache = Cache(environment) if cache is None else cache
    missing = [own for own in _entries(table) if cache.get(*own) is None]
    found: dict[Entry, float] = {}
    for number in range(_PASSES + _REPAIRS):
        again = missing if number < _PASSES else disturbed(found)
        for own in _with_progress(again):
            found[own] = min(layer_ms(target, *own), found.get(own, math.inf))
    for own, ms in found.items():
        cache.put(*own, ms)
    if found:
        cache.save()
    layers = []
    for times in table.layers:
        rows = [[cache.get(times.kind, i, o) for o in times.outputs] for i in times.inputs]
        layers.append(dataclasses.replace(times, ms=np.array(rows, dtype=np.float64).round(9)))
    return dataclasses.replace(
        table,
        machine=", ".join(environment.values()),
        layers=tuple(layers),
        networks=tuple(_network_times(subject, target)),
    )


def disturbed(found: Mapping[Entry, float]) -> list[Entry]:
    """Layers whose time was disturbed: a larger one of the kind is faster, or a smaller one for each operation.

    Load on the machine can slow a short timing several times, and one such time would mislead all widths near it.
    """
    by_kind: dict[LayerKind, list[tuple[int, int, float]]] = defaultdict(list)
    for (kind, i, o), ms in found.items():
        by_kind[kind].append((i, o, ms))
    slow = []
    for kind, rows in by_kind.items():
        inputs, outputs, times = np.array(rows, dtype=np.float64).T
        # (entries, others): how large the other is, as a share of the entry, on both sides
        reads, writes = inputs / inputs[:, None], outputs / outputs[:, None]
        larger, smaller = (reads >= 1) & (writes >= 1), (reads <= 1) & (writes <= 1)
        most = np.minimum(
            np.where(larger, times, math.inf).min(1),
            np.where(smaller, times / (reads * writes), math.inf).min(1),
        )
        slow += [
            (kind, i, o) for (i, o, _), late in zip(rows, times > _LATE * most, strict=True) if late
        ]
    return slow


def _network_times(subject: Subject, target: LatencyTarget) -> Iterator[NetworkTime]:
    dense_ms = 0.0
    for keep in KEEPS:
        networks = [subject.deployed()] + ([] if keep == 1 else [subject.at_share(keep)])
        times = network_times(target, networks, subject.inputs)
        if keep == 1:
            dense_ms = times.median(0)
            yield NetworkTime(1.0, round(dense_ms, 6))
        else:
            yield NetworkTime(keep, round(dense_ms * times.ratios()[1], 6))


def _entries(table: LatencyTable) -> list[Entry]:
    every = [(own.kind, i, o) for own in table.layers for i in own.inputs for o in own.outputs]
    return list(dict.fromkeys(every))


def _with_progress(
    entries: Sequence[Entry],
) -> Iterable[Entry]:
    return track(entries, "timing layers", transient=True) if entries else entries


def write_graphs(table: LatencyTable, subject: Subject, folder: Path) -> list[str]:
    """Write the layers and networks of a table as ONNX files, to be timed elsewhere.

    Returns:
        Lines of a CSV file: the file, and what it is of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,what"]
    for own in table.networks:
        name = f"network_{round(100 * own.keep):03d}.onnx"
        write_onnx(subject.at_share(own.keep).timed, subject.inputs, folder / name)
        lines.append(f"{name},networks; keep {own.keep:g}")
    for number, times in enumerate(table.layers, start=1):
        for i in times.inputs:
            for o in times.outputs:
                name = f"layer_{number:03d}_{i}_{o}.onnx"
                write_layer(times.kind, channels_read(times.kind, i, o), o, folder / name)
                lines.append(f'{name},"layers; row {number}: {times.kind}; {i} to {o} channels"')
    with atomic(folder / "files.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines
