# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exported files as programs to be timed: on one thread where the runtime takes a number of threads."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.autobackend import AutoBackend

from detprune.run.export.onnx_files import session
from detprune.run.measuring.pairs import Program
from detprune_yolo.export.exporter import silence

ON_ONE_THREAD = ("onnx", "openvino", "torchscript")
"""Formats whose programs here run on one thread of the processor; others run as Ultralytics runs them."""


def program(path: Path, file_format: str, image: Tensor) -> Program:
    """A program that runs an exported file once.

    Args:
        path: the file or folder.
        file_format: name of its format.
        image: input of the network, (N, channels, height, width), between 0 and 1.
    """
    if file_format == "onnx":
        runtime = session(path, threads=1)
        feed = {runtime.get_inputs()[0].name: image.numpy()}
        return lambda: runtime.run(None, feed)
    if file_format == "openvino":
        return _openvino(path, image)
    network = backend(path)

    def run() -> None:
        with torch.inference_mode():
            network(image)

    return run


def backend(path: Path) -> Any:
    """An exported file as Ultralytics runs it, called with images."""
    with silence():
        return AutoBackend(model=str(path), device=torch.device(_device(path)), verbose=False)


def outputs(path: Path, image: Tensor) -> list[Tensor]:
    """The outputs of an exported file, as Ultralytics runs it."""
    device = _device(path)
    with torch.inference_mode():
        found = backend(path)(image.to(device))
    return [
        value.float().cpu() for value in (found if isinstance(found, list | tuple) else [found])
    ]


def _device(path: Path) -> str:
    return "cuda:0" if path.suffix == ".engine" else "cpu"


def _openvino(path: Path, image: Tensor) -> Program:
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(str(next(path.glob("*.xml"))), "CPU", options)
    request, feed = model.create_infer_request(), [image.numpy()]
    return lambda: request.infer(feed)
