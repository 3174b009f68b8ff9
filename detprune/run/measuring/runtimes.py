"""Runtimes for a network: PyTorch, and ONNX Runtime, OpenVINO and TensorRT if they are installed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detprune.run.export.onnx_files import CPU, session
from detprune.run.measuring.pairs import Program

PYTORCH = "PyTorch"


class UnusableError(Exception):
    """A runtime that cannot run here; the text is the reason."""


class Job(NamedTuple):
    """A network, its ONNX file and its inputs.

    Attributes:
        network: the network in evaluation mode, on the device.
        onnx: None where it could not be exported.
        inputs: arguments of the network, on the device.
        device: ``cpu`` or ``cuda``.
        threads: processor threads.
    """

    network: nn.Module
    onnx: Path | None
    inputs: Sequence[Tensor]
    device: str
    threads: int

    @property
    def feed(self) -> dict[str, Any]:
        """Input names of the ONNX file → arrays."""
        return {f"input{i}": value.cpu().numpy() for i, value in enumerate(self.inputs)}

    @property
    def file(self) -> Path:
        """The ONNX file."""
        if self.onnx is None:
            raise UnusableError("could not be exported to ONNX")
        return self.onnx


def pytorch(job: Job) -> Program:
    """Run the network in PyTorch."""
    synchronize = torch.cuda.synchronize if job.device != "cpu" else None

    def run() -> None:
        with torch.inference_mode():
            job.network(*job.inputs)
        if synchronize is not None:
            synchronize()

    return run


def onnx_runtime(job: Job) -> Program:
    """Run the ONNX file in an ONNX Runtime session with all optimizations."""
    provider = CPU if job.device == "cpu" else "CUDAExecutionProvider"
    return _session(job, provider)


def tensorrt(job: Job) -> Program:
    """Run the ONNX file in TensorRT, through ONNX Runtime."""
    return _session(job, "TensorrtExecutionProvider")


def openvino(job: Job) -> Program:
    """Run the ONNX file in OpenVINO, compiled for low latency."""
    import openvino as ov

    file = job.file
    threads = {"INFERENCE_NUM_THREADS": job.threads} if job.device == "cpu" else {}
    options = {"PERFORMANCE_HINT": "LATENCY", **threads}
    model = ov.Core().compile_model(str(file), "CPU", options)
    request, feed = model.create_infer_request(), job.feed
    return lambda: request.infer(feed)


def _session(job: Job, provider: str) -> Program:
    file = job.file
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise UnusableError(f"this build of ONNX Runtime has no {provider}")
    runtime = session(file, threads=job.threads, provider=provider)
    if provider not in runtime.get_providers():
        raise UnusableError(f"ONNX Runtime could not start {provider}")
    feed = job.feed
    return lambda: runtime.run(None, feed)


class Runtime(NamedTuple):
    """A way to run a network.

    Attributes:
        package: the package that has to be installed.
        devices: devices that it can use.
        program: makes what is timed.
    """

    package: str
    devices: tuple[str, ...]
    program: Callable[[Job], Program]

    @property
    def is_installed(self) -> bool:
        """Whether the package is installed; it is not imported."""
        return find_spec(self.package) is not None


RUNTIMES: Mapping[str, Runtime] = {
    PYTORCH: Runtime("torch", ("cpu", "cuda"), pytorch),
    "ONNX Runtime": Runtime("onnxruntime", ("cpu", "cuda"), onnx_runtime),
    "OpenVINO": Runtime("openvino", ("cpu",), openvino),
    "TensorRT": Runtime("tensorrt", ("cuda",), tensorrt),
}
"""Name of a runtime → how it runs a network, in the order of the tables."""


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run PyTorch on ``number`` threads in the block, and restore the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
