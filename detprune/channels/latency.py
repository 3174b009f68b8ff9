"""The time of a network as a function of its widths.

The time of a network is predicted as a·S + b·E + c. S is the sum of the times of its convolutions and linear layers,
each measured alone at several widths. E is the number of values that they write: activations, sums, concatenations
and resizing move these. c is constant. The three weights, none negative, are those that fit the measured times of
the whole network: dense, and with fewer channels in all layers. Where only the dense network was measured, a is 1
and the rest of its time goes with E.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from detprune.channels import allocation
from detprune.channels.costs import Costs, Numbers
from detprune.channels.groups import ChannelGroups
from detprune.channels.labels import Row
from detprune.channels.latency_table import LatencyTable, LayerTimes
from detprune.errors import InputError, listed


class Latency:
    """The share of the dense network's time, as a function of the numbers of groups kept.

    Args:
        table: the times.
        costs, groups: of the network.

    Raises:
        InputError: the table is of another network.
    """

    def __init__(self, table: LatencyTable, costs: Costs, groups: ChannelGroups) -> None:
        self._costs = costs
        self._adjust = table.adjust
        self._layers = [
            (
                times,
                _Widths([costs.rows[number][0] for number in numbers], costs),
                _Widths([costs.rows[number][-1] for number in numbers], costs),
            )
            for times, numbers in _matched(table, costs)
        ]
        step = allocation.steps(groups, table.round_to)
        known = [(own.keep, own.ms) for own in table.networks if own.ms is not None]
        counts = np.array([allocation.at_share(costs.sizes, step, keep) for keep, _ in known])
        self._weights = _fitted(self._terms(counts), np.array([ms for _, ms in known]))
        self._dense = float(self._milliseconds(costs.sizes))

    def layers(self, counts: Row) -> Numbers:
        """Sum of the milliseconds of all layers, each alone, (…, ties) → (…)."""
        kept = np.asarray(counts, dtype=np.float64)
        total = np.zeros(kept.shape[:-1])
        for times, inputs, outputs in self._layers:
            total = total + times.at(inputs(kept), outputs(kept)).sum(-1)
        return total

    def predicted(self, counts: Row) -> Numbers:
        """Share of the dense network's time, as the table says it, without what was learned of a chosen network."""
        return self._milliseconds(counts) / self._dense

    def __call__(self, counts: Row) -> Numbers:
        """Share of the dense network's time, (…, ties) → (…)."""
        return 1 - self._adjust * (1 - self.predicted(counts))

    def _terms(self, counts: Row) -> Numbers:
        elements = self._costs.elements(counts) / self._costs.elements(self._costs.sizes)
        return np.stack([self.layers(counts), elements, np.ones_like(elements)], -1)

    def _milliseconds(self, counts: Row) -> Numbers:
        return np.asarray(self._terms(counts) @ self._weights)


class _Widths:
    """Widths of several rows of channels, (…, ties) → (…, rows)."""

    def __init__(self, rows: Sequence[Row], costs: Costs) -> None:
        found = [costs.widths(row) for row in rows]
        self._slopes = np.stack([slope for slope, _ in found], -1)
        self._offsets = np.array([offset for _, offset in found])

    def __call__(self, kept: Numbers) -> Numbers:
        return np.asarray(kept @ self._slopes + self._offsets)


def dense_widths(costs: Costs, number: int) -> tuple[int, int]:
    """Channels that an operation reads and writes in the dense network; a grouped one reads what its outputs fix."""
    rows, kind = costs.rows[number], costs.operations[number].kind
    if kind is not None and kind.group:
        return len(rows[-1]) // kind.group[1] * kind.group[0], len(rows[-1])
    return len(rows[0]), len(rows[-1])


def _matched(table: LatencyTable, costs: Costs) -> list[tuple[LayerTimes, list[int]]]:
    """Each row of the table with the numbers of the operations that it is about.

    Raises:
        InputError: layers that the table lacks.
    """
    known = {(own.kind, own.inputs[-1], own.outputs[-1]): own for own in table.layers}
    found: dict[int, tuple[LayerTimes, list[int]]] = {}
    lacking = []
    for number, own in enumerate(costs.operations):
        if own.kind is None:
            continue
        widths = dense_widths(costs, number)
        times = known.get((own.kind, *widths))
        if times is None:
            lacking.append(f"{own.name} ({own.kind}, {widths[0]} to {widths[1]} channels)")
        else:
            found.setdefault(id(times), (times, []))[1].append(number)
    if lacking:
        raise InputError(
            f"the table of latencies is of another network, or of another size of images: it has no times of "
            f"{listed(lacking, 3)}. Write a table for this network with detprune profile"
        )
    return list(found.values())


def _fitted(terms: Numbers, ms: NDArray[np.float64]) -> Numbers:
    """Weights of the terms, none negative, with the least squares of relative errors over the measured networks."""
    if len(ms) == 1:
        layers, elements, _ = terms[0]
        rest = max(ms[0] - layers, 0.0)
        return np.array([(ms[0] - rest) / layers if layers else 0.0, rest / elements, 0.0])
    scaled = terms / ms[:, None]
    best, weights = np.inf, np.zeros(3)
    for number in (1, 2, 3):
        for chosen in combinations(range(3), min(number, len(ms))):
            columns = list(chosen)
            solution = np.linalg.lstsq(scaled[:, columns], np.ones(len(ms)), rcond=None)[0]
            error = float(((scaled[:, columns] @ solution - 1) ** 2).sum())
            if (solution >= 0).all() and error < best - 1e-12:
                best, weights = error, np.zeros(3)
                weights[columns] = solution
    return weights
