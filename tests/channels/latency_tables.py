"""Tables of latencies whose times are known functions of the widths: no clock is read."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import detprune as dp
from detprune.channels.latency_table import LatencyTable, NetworkTime
from detprune.latency_targets import LatencyTarget
from detprune.run.latency.choosing import write_table
from detprune.run.latency.profiling import Subject, empty_table
from detprune.run.measuring.deployment import Deployed
from detprune.run.measuring.pairs import Times

FIXED = 2e-4  # milliseconds of everything besides the layers
PER_MAC = 1e-8  # milliseconds


class Small(nn.Module):
    """Three convolutions, one of them depthwise, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.two = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.deep(self.one(x).relu()).relu()).relu()
        return self.last(x.mean((2, 3)))


def channels(**options: Any) -> dp.CoupledChannels:
    return dp.CoupledChannels(torch.zeros(1, 3, 16, 16), **{"round_to": 4, **options})


def layer_ms(_target: object, kind: Any, inputs: int, outputs: int) -> float:
    """A time that is bilinear in the widths, as the layer's operations are."""
    if kind.group:
        inputs = 1
    steps = np.prod([n // s for n, s in zip(kind.size, kind.stride, strict=True)] or [1])
    return float(PER_MAC * inputs * outputs * steps * np.prod(kind.kernel or (1,)))


def network_ms(network: nn.Module, inputs: Sequence[Tensor], fixed: float = FIXED) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return float(PER_MAC * counter.get_total_flops() / 2 + fixed)


def times(fixed: float = FIXED) -> Callable[..., Times]:
    """A stand-in for the clock: every round gives the milliseconds that the operations say."""

    def network_times(_: object, networks: Sequence[Deployed], inputs: Sequence[Tensor]) -> Times:
        found = tuple(network_ms(own.timed, inputs, fixed) for own in networks)
        return Times((found,) * 3)

    return network_times


def filled(model: nn.Module, chosen: dp.CoupledChannels) -> LatencyTable:
    """The table of a network with the times of the functions above, of the dense network alone."""
    target = LatencyTarget()
    subject = Subject.on(target, model, chosen, dp.Budget(latency=0.5))
    table = empty_table(subject, target)
    layers = [
        dataclasses.replace(
            own,
            ms=np.array(
                [[layer_ms(None, own.kind, i, o) for o in own.outputs] for i in own.inputs]
            ),
        )
        for own in table.layers
    ]
    dense = network_ms(model, subject.inputs, 0.0)
    return dataclasses.replace(
        table, layers=tuple(layers), networks=(NetworkTime(1.0, dense), NetworkTime(0.5, None))
    )


def on_disk(table: LatencyTable, path: Path) -> dict[str, str]:
    """The target that names the table's file."""
    write_table(table, path)
    return {"table": str(path)}
