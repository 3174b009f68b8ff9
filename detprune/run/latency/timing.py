"""Times of layers and networks on a target that is here."""

import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from detprune.channels.layer_kinds import LayerKind
from detprune.errors import InputError
from detprune.latency_targets import LatencyTarget
from detprune.run.export.onnx_files import write_onnx
from detprune.run.latency.single_layers import channels_read, input_shape, module, write_layer
from detprune.run.measuring.deployment import Deployed
from detprune.run.measuring.measurement import check_device, check_threads, machine_name
from detprune.run.measuring.pairs import Clock, Program, Times, in_turn
from detprune.run.measuring.runtimes import RUNTIMES, Job, UnusableError, torch_threads

_NAMES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
}
_NEEDED = {
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tensorrt": ("onnx", "onnxruntime", "tensorrt"),  # it runs through ONNX Runtime
}
_ROUNDS, _SECONDS = 21, 10.0  # pairs of networks, and most seconds for them
_PASS = 0.025  # seconds for a layer in a pass, after at least three timings
_TIMING = 0.004  # seconds of one timing, so that the clock's resolution weighs little


def check_target(target: LatencyTarget) -> None:
    """Refuse a target that is not here.

    Raises:
        InputError: no such GPU, a package that is not installed, or a runtime that cannot use the device.
    """
    check_device(target.device)
    check_threads(target.threads)
    missing = [name for name in _NEEDED[target.runtime] if find_spec(name) is None]
    if missing:
        raise InputError(
            f"target: {target.runtime} needs {' and '.join(missing)}, not installed here; install with: "
            f"pip install {' '.join(missing)}; or measure a table where it is installed (detprune profile)"
        )


def environment_of(target: LatencyTarget) -> dict[str, str]:
    """What times on a target depend on: the hardware, the threads, the runtime and its version."""
    version = str(getattr(import_module(target.runtime), "__version__", "unknown"))
    return {
        "machine": machine_name(target.device),
        "device": target.device,
        "threads": str(target.threads),
        "runtime": f"{target.runtime} {version}",
        "precision": target.precision,
    }


def layer_ms(target: LatencyTarget, kind: LayerKind, inputs: int, outputs: int) -> float:
    """Milliseconds of one layer: the least of some timings, because other load only adds to them."""
    inputs = channels_read(kind, inputs, outputs)
    shape = input_shape(kind, inputs)
    with tempfile.TemporaryDirectory() as folder, torch_threads(target.threads):
        file = None
        if target.runtime != "torch":
            file = Path(folder) / "layer.onnx"
            write_layer(kind, inputs, outputs, file)
        program = _program(target, module(kind, inputs, outputs), file, (torch.rand(shape),))
        return 1000 * _least(program, _clock(target))


def network_times(
    target: LatencyTarget, networks: Sequence[Deployed], inputs: Sequence[Tensor]
) -> Times:
    """Milliseconds of one or two networks, timed in turn."""
    with tempfile.TemporaryDirectory() as folder, torch_threads(target.threads):
        programs = []
        for number, own in enumerate(networks):
            file = None
            if target.runtime != "torch":
                file = Path(folder) / f"{number}.onnx"
                write_onnx(own.timed, inputs, file)
            programs.append(_program(target, own.timed, file, inputs))
        return in_turn(tuple(programs), rounds=_ROUNDS, seconds=_SECONDS, clock=_clock(target))


def _program(
    target: LatencyTarget, network: nn.Module, file: Path | None, inputs: Sequence[Tensor]
) -> Program:
    half = target.precision == "fp16"
    placed = [value.to(target.device) for value in inputs]
    if half:
        placed = [value.half() if value.is_floating_point() else value for value in placed]
    network = network.half() if half else network
    job = Job(network.to(target.device), file, tuple(placed), target.device, target.threads)
    try:
        return RUNTIMES[_NAMES[target.runtime]].program(job)
    except UnusableError as error:
        raise InputError(
            f"target: {target} cannot be measured here: {error}; give another runtime or device"
        ) from error


def _clock(target: LatencyTarget) -> Clock:
    """The clock of a target: on one thread the processor's, which leaves out what other processes take of it."""
    alone = target.device == "cpu" and target.threads == 1
    return time.process_time if alone else time.perf_counter


def _least(program: Program, clock: Clock) -> float:
    program()
    began = clock()
    program()
    calls = max(1, round(_TIMING / max(clock() - began, 1e-6)))
    found: list[float] = []
    first = clock()
    while len(found) < 3 or clock() - first < _PASS:
        began = clock()
        for _ in range(calls):
            program()
        found.append((clock() - began) / calls)
    return min(found)
