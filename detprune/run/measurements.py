"""Types of what ``detprune measure`` finds: sizes and latencies of a network, and of the dense one."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """Sizes and operations of a network.

    Attributes:
        parameters: parameters of the network, without those that only training uses.
        nonzero: those of them that are not zero.
        macs: multiply-accumulate operations of one call, as it is deployed.
        pt_bytes, onnx_bytes: sizes of its files; None if there is none.
    """

    parameters: int
    nonzero: int
    macs: int
    pt_bytes: int | None
    onnx_bytes: int | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call in one runtime.

    Attributes:
        runtime: its name.
        dense_ms, pruned_ms: medians of all rounds; None where there is no such network, or it did not run.
        ratio: median of pruned by dense in the same round.
        quartiles: first and third quartile of the same ratios.
        rounds: number of rounds, in each of which both were timed in turn.
        note: why it was not measured.
    """

    runtime: str
    dense_ms: float | None = None
    pruned_ms: float | None = None
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None
    rounds: int = 0
    note: str | None = None


@dataclass(frozen=True)
class Measurement:
    """The measurement of a network, and of the dense network it is compared with.

    Attributes:
        pruned: the network.
        dense: the network that it is compared with; None: there is none.
        latencies: one per runtime.
        shapes: shapes of the inputs.
        device, threads: device, and number of processor threads, of the timings.
        machine: the processor, or the GPU.
        notes: what could not be measured, and why.
    """

    pruned: Size
    dense: Size | None
    latencies: tuple[Latency, ...]
    shapes: tuple[tuple[int, ...], ...]
    device: str
    threads: int
    machine: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)
