"""The table of a latency budget: the times of single layers at several widths, and of the whole network.

``detprune profile`` writes it, here or for another device; it is a YAML file that a person can fill in.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detprune.channels.costs import Numbers
from detprune.channels.layer_kinds import LayerKind
from detprune.errors import InputError, listed

FORMAT = "detprune_latency"
VERSION = 1
_MOST = 1e9  # milliseconds: beyond them sums of times overflow, and no network takes twelve days


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of one layer at several widths.

    Attributes:
        weights: names of the weights of all layers of this kind and these widths.
        kind: what the time depends on besides the widths.
        inputs, outputs: widths, ascending; the last ones are those of the dense network. For a grouped
            convolution, whose outputs fix its inputs, ``inputs`` has one entry.
        ms: (inputs, outputs); NaN where a time is not filled in.
    """

    weights: tuple[str, ...]
    kind: LayerKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: Numbers

    def at(self, inputs: Numbers, outputs: Numbers) -> Numbers:
        """Milliseconds at any widths, (…): bilinear between the measured ones, and beyond them."""
        low, share = _place(self.inputs, inputs)
        left, part = _place(self.outputs, outputs)
        high, right = (
            np.minimum(low + 1, len(self.inputs) - 1),
            np.minimum(left + 1, len(self.outputs) - 1),
        )
        first = (1 - part) * self.ms[low, left] + part * self.ms[low, right]
        second = (1 - part) * self.ms[high, left] + part * self.ms[high, right]
        return np.asarray(np.maximum((1 - share) * first + share * second, 0.0))


def _place(points: Sequence[int], values: Numbers) -> tuple[Any, Numbers]:
    """The number of the point below each value, and the value's distance to it as share of the next interval."""
    if len(points) == 1:
        return np.zeros(values.shape, dtype=np.int64), np.zeros(values.shape)
    grid = np.array(points, dtype=np.float64)
    below = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return below, (values - grid[below]) / (grid[below + 1] - grid[below])


@dataclass(frozen=True)
class NetworkTime:
    """Milliseconds of the whole network at a share of the channels of every layer; None: not filled in."""

    keep: float
    ms: float | None


@dataclass(frozen=True)
class LatencyTable:
    """The times of a network on one target.

    Attributes:
        target: where they were measured, in words or as the options of a target.
        machine: the device and the versions of what ran.
        inputs: shapes of the network's inputs.
        round_to: widths are multiples of it.
        networks: times of the whole network; the first one is of the dense network.
        layers: times of single layers.
        adjust: the removed share of the time is this much larger than the sum of the layers says; a measurement
            of the chosen network sets it.
        chosen: the share of the time that a budget asked for, that the table predicted, and that was measured,
            of the network that was chosen by the table.
    """

    target: Mapping[str, Any]
    machine: str
    inputs: tuple[tuple[int, ...], ...]
    round_to: int
    networks: tuple[NetworkTime, ...]
    layers: tuple[LayerTimes, ...]
    adjust: float = 1.0
    chosen: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the file."""
        return {
            FORMAT: VERSION,
            "target": dict(self.target),
            "machine": self.machine,
            "inputs": [list(shape) for shape in self.inputs],
            "round_to": self.round_to,
            "adjust": self.adjust,
            **({} if self.chosen is None else {"chosen": dict(self.chosen)}),
            "networks": [{"keep": own.keep, "ms": own.ms} for own in self.networks],
            "layers": [
                {
                    "weights": list(own.weights),
                    "layer": own.kind.as_dict(),
                    "inputs": list(own.inputs),
                    "outputs": list(own.outputs),
                    "ms": [[None if math.isnan(t) else t for t in row] for row in own.ms.tolist()],
                }
                for own in self.layers
            ],
        }

    def check_filled(self, where: object) -> None:
        """Refuse a table in which times are missing.

        Raises:
            InputError: with the first places where they are.
        """
        lacking = [
            f"{own.kind}, {i} to {o} channels"
            for own in self.layers
            for row, i in zip(own.ms, own.inputs, strict=True)
            for time, o in zip(row, own.outputs, strict=True)
            if math.isnan(time)
        ]
        if self.networks[0].ms is None:
            lacking.insert(0, "the dense network (networks, keep: 1.0)")
        if lacking:
            raise InputError(
                f"{where}: {len(lacking)} times are missing: {listed(lacking, 3)}; measure them and write them as "
                "milliseconds in place of null"
            )


def table_of(values: object, where: object) -> LatencyTable:
    """A table from the content of its file.

    Args:
        values: plain values.
        where: the file, for messages.

    Raises:
        InputError: the first thing that is wrong, with its place.
    """
    top = _mapping(values, f"{where}")
    if FORMAT not in top:
        raise InputError(
            f"{where} is no table of latencies (no key {FORMAT}); write one with detprune profile"
        )
    if top[FORMAT] != VERSION:
        raise InputError(f"{where}: {FORMAT} is {top[FORMAT]!r}; this version reads {VERSION}")
    for key in ("target", "inputs", "round_to", "networks", "layers"):
        if key not in top:
            raise InputError(
                f"{where}: {key} is missing; write the table again with detprune profile"
            )
    networks = []
    for number, row in enumerate(_rows(top["networks"], f"{where}: networks")):
        place = f"{where}: networks, row {number + 1}"
        own = _mapping(row, place)
        keep, ms = _time(own.get("keep"), f"{place}: keep"), _time(own.get("ms"), f"{place}: ms")
        if math.isnan(keep) or keep > 1:
            raise InputError(
                f"{place}: keep is {own.get('keep')!r}; allowed is a share above 0, up to 1"
            )
        networks.append(NetworkTime(keep, None if math.isnan(ms) else ms))
    networks.sort(key=lambda own: -own.keep)
    if not networks or networks[0].keep != 1:
        raise InputError(
            f"{where}: networks has no row of the dense network (keep: 1.0); add it with its time"
        )
    stated = top.get("chosen")
    chosen = None if stated is None else _mapping(stated, f"{where}: chosen")
    adjust = _time(top.get("adjust", 1.0), f"{where}: adjust")
    return LatencyTable(
        _mapping(top["target"], f"{where}: target"),
        str(top.get("machine", "")),
        tuple(
            _widths(shape, f"{where}: inputs") for shape in _rows(top["inputs"], f"{where}: inputs")
        ),
        _widths([top["round_to"]], f"{where}: round_to")[0],
        tuple(networks),
        tuple(
            _layer(row, f"{where}: layers, row {number + 1}")
            for number, row in enumerate(_rows(top["layers"], f"{where}: layers"))
        ),
        1.0 if math.isnan(adjust) else adjust,
        chosen,
    )


def read_table(path: Path) -> LatencyTable:
    """The table in a file, filled in.

    Raises:
        InputError: no such file, no table, or times that are missing or no positive numbers.
    """
    from detprune.files import load_yaml

    table = table_of(load_yaml(path), path)
    table.check_filled(path)
    return table


def _layer(row: object, where: str) -> LayerTimes:
    own = _mapping(row, where)
    for key in ("weights", "layer", "inputs", "outputs", "ms"):
        if key not in own:
            raise InputError(f"{where}: {key} is missing")
    described = dict(_mapping(own["layer"], f"{where}: layer"))
    lists = {
        k: _numbers(v, f"{where}: layer.{k}") for k, v in described.items() if isinstance(v, list)
    }
    try:
        kind = LayerKind(**{**described, **lists})
    except TypeError as error:
        raise InputError(f"{where}: layer is {described!r}, which describes no layer") from error
    inputs, outputs = (_widths(own[key], f"{where}: {key}") for key in ("inputs", "outputs"))
    rows = _rows(own["ms"], f"{where}: ms")
    if len(rows) != len(inputs) or any(len(_rows(r, f"{where}: ms")) != len(outputs) for r in rows):
        raise InputError(
            f"{where}: ms has to have {len(inputs)} rows (one for each of inputs) of {len(outputs)} times (one for "
            "each of outputs)"
        )
    ms = np.array(
        [
            [_time(t, f"{where}: ms, {i} to {o} channels") for t, o in zip(r, outputs, strict=True)]
            for r, i in zip(rows, inputs, strict=True)
        ]
    )
    return LayerTimes(
        tuple(map(str, _rows(own["weights"], f"{where}: weights"))), kind, inputs, outputs, ms
    )


def _time(value: object, where: str) -> float:
    """A positive number; NaN for null."""
    if value is None:
        return math.nan
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 < value < _MOST:  # type: ignore[operator]
        raise InputError(
            f"{where} is {value!r}; allowed is a number above 0 and below {_MOST:g}, or null until it is measured"
        )
    return float(value)  # type: ignore[arg-type]


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"{where} holds no mapping of keys; write the table again with detprune profile"
        )
    return value


def _rows(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {value!r:.60}; it has to be a list")
    return value


def _numbers(value: Sequence[object], where: str) -> tuple[int, ...]:
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value):
        raise InputError(f"{where} is {list(value)!r:.60}; it has to be a list of whole numbers")
    return tuple(value)  # type: ignore[arg-type]


def _widths(value: object, where: str) -> tuple[int, ...]:
    found = _numbers(_rows(value, where), where)
    if not found or min(found) < 1:
        raise InputError(f"{where} is {value!r:.60}; it has to hold whole numbers, 1 or more")
    return found
