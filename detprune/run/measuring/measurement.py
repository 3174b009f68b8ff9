"""Size and latency of one network, or of a dense and a pruned one, timed in turn."""

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from detprune.errors import InputError
from detprune.files.storage import storage_reason, way_out
from detprune.loggers import logger
from detprune.run.export.onnx_files import write_onnx
from detprune.run.measurements import Latency, Measurement, Size
from detprune.run.measuring.deployment import Deployed, deployed
from detprune.run.measuring.pairs import Clock, in_turn
from detprune.run.measuring.runtimes import PYTORCH, RUNTIMES, Job, UnusableError, torch_threads
from detprune.run.shrinking import count_macs

LOGGER = logger(__name__)

NOT_INSTALLED = "not installed"
_THREADS = 256  # as a large machine has; runtimes crash with tens of thousands


def measure_networks(
    dense: nn.Module | Deployed | None,
    pruned: nn.Module | Deployed,
    inputs: Sequence[Tensor],
    *,
    pt_bytes: tuple[int | None, int | None] = (None, None),
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 50,
    seconds: float = 10.0,
    clock: Clock = time.perf_counter,
) -> Measurement:
    """Count, export and time networks as inference runs them; the networks do not change.

    What fails on the way (an export, a runtime) is said in a note and hinders nothing else.

    Args:
        dense, pruned: networks, or what ``deployed`` made of them.
        inputs: arguments of the networks, on any device.
        pt_bytes: sizes of the dense and the pruned file.
        device: ``cpu`` or ``cuda``.
        threads: processor threads, for every runtime.
        rounds: number of rounds, in each of which every network is timed once, in turn.
        seconds: time for each runtime, after which no further round starts.
        clock: clock of the timings; ``time.process_time`` for one thread on a busy machine.

    Raises:
        InputError: no such device, too many threads, or the network does not run on the inputs.
    """
    check_device(device)
    check_threads(threads)
    given = (
        [(pruned, pt_bytes[1])] if dense is None else [(dense, pt_bytes[0]), (pruned, pt_bytes[1])]
    )
    notes: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch_threads(threads))
        sizes, jobs = [], []
        for number, (network, size) in enumerate(given):
            own = network if isinstance(network, Deployed) else deployed(network)
            cpu = tuple(value.cpu() for value in inputs)
            timed = own.timed.cpu().float().eval()
            macs = _macs(timed, cpu)
            file = _exported(timed, cpu, folder / f"{number}.onnx", notes)
            sizes.append(_size(own.counted, macs, size, file))
            placed = tuple(value.to(device) for value in cpu)
            jobs.append(Job(timed.to(device), file, placed, device, threads))
        latencies = [_latency(name, jobs, rounds, seconds, clock) for name in RUNTIMES]
    return Measurement(
        pruned=sizes[-1],
        dense=sizes[0] if dense is not None else None,
        latencies=tuple(latency for latency in latencies if latency is not None),
        shapes=tuple(tuple(value.shape) for value in inputs),
        device=device,
        threads=threads,
        machine=machine_name(device),
        notes=tuple(dict.fromkeys(notes)),
    )


def check_device(device: str) -> None:
    """Refuse a device other than the processor or a GPU of this machine.

    Raises:
        InputError: with what can be given.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"device is {device!r}; give cpu or cuda")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {device!r}, but PyTorch finds {torch.cuda.device_count()} CUDA GPUs here; give cpu"
        )


def check_threads(threads: int) -> None:
    """Refuse numbers of threads with which runtimes crash.

    Raises:
        InputError: with what can be given.
    """
    most = max(_THREADS, os.cpu_count() or 1)
    if not 1 <= threads <= most:
        raise InputError(f"threads is {threads}; allowed is a whole number from 1 to {most}")


def _macs(network: nn.Module, inputs: Sequence[Tensor]) -> int:
    try:
        return count_macs(lambda: network(*inputs))
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
        raise InputError(
            f"the network does not run on inputs of shape {shapes}: {_first_line(error)}; give another --size"
        ) from error


def _exported(
    network: nn.Module, inputs: Sequence[Tensor], path: Path, notes: list[str]
) -> Path | None:
    try:
        write_onnx(network, inputs, path)
    except (
        Exception
    ) as error:  # torch's exporter may raise any type; everything else can still be measured
        LOGGER.debug("export to ONNX failed", exc_info=True)
        advice = ""
        if isinstance(error, OSError) and storage_reason(error) is not None:
            advice = f"; {way_out(error)}"
        notes.append(f"not exported to ONNX: {_first_line(error)}{advice}")
        return None
    return path


def _size(network: nn.Module, macs: int, pt_bytes: int | None, onnx: Path | None) -> Size:
    parameters = list(network.parameters())
    return Size(
        parameters=sum(p.numel() for p in parameters),
        nonzero=sum(int(torch.count_nonzero(p)) for p in parameters),
        macs=macs,
        pt_bytes=pt_bytes,
        onnx_bytes=None if onnx is None else onnx.stat().st_size,
    )


def _latency(
    name: str, jobs: Sequence[Job], rounds: int, seconds: float, clock: Clock
) -> Latency | None:
    """Time the networks in one runtime; None for a runtime of another device."""
    runtime = RUNTIMES[name]
    if jobs[0].device.partition(":")[0] not in runtime.devices:
        return None
    if not runtime.is_installed:
        return Latency(name, note=NOT_INSTALLED)
    try:
        programs = tuple(runtime.program(job) for job in jobs)
        times = in_turn(programs, rounds=rounds, seconds=seconds, clock=clock)
    except UnusableError as error:
        return Latency(name, note=str(error))
    except (
        Exception
    ) as error:  # a third-party runtime may raise any type; the others can still be measured
        if name == PYTORCH:
            raise
        LOGGER.debug("%s failed", name, exc_info=True)
        return Latency(name, note=f"failed: {_first_line(error)}")
    if len(jobs) == 1:
        return Latency(name, pruned_ms=times.median(0), rounds=len(times.rounds))
    first, ratio, third = times.ratios()
    dense, pruned = times.median(0), times.median(1)
    return Latency(name, dense, pruned, ratio, (first, third), len(times.rounds))


def machine_name(device: str) -> str:
    """The processor with its number of cores, or the GPU."""
    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
