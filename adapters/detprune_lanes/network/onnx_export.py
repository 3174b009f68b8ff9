"""ONNX files of lane networks, checked against the network before they get their name.

The check covers the weights (those of all convolutions and linear layers are in the file bit by bit, so
that its zeros are the network's) and the outputs (ONNX Runtime against PyTorch on the same images).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.files.atomic import atomic
from detprune.run.measuring.deployment import exporter_warnings_off
from detprune_lanes.network.model import LaneNetwork

_PACKAGES = ("onnx", "onnxruntime")
_INPUT, _OUTPUT = "images", "logits"
_BATCHES = (1, 2)  # batch sizes of the comparison; the file allows any


def export_onnx(model: LaneNetwork, path: Path, *, tolerance: float = 1e-4) -> list[str]:
    """Write the network without auxiliary branch, in float32, and check it; return lines to print.

    Input ``images``: (N, 3, H, W) of the network's size, RGB, normalised with ImageNet's mean and
    standard deviation. Output ``logits``: (N, cells + 1, rows, lanes). N is open. Batch norms stay
    nodes of their own, since folding them would change the weights; runtimes fold them on loading.

    Args:
        model: the network; it does not change.
        path: the ``.onnx`` file; nothing is written if a check fails.
        tolerance: allowed difference of logits, as a part of the largest one.

    Raises:
        InputError: another file name, or a package is missing.
        NonFiniteError: the network gives NaN or infinity.
        DetpruneError: weights or outputs of the file differ from the network's.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"export to ONNX needs {', '.join(missing)}, not installed here; install with: "
            "pip install 'detprune[lanes]'"
        )
    if path.suffix != ".onnx":
        raise InputError(f"{path} has to end in .onnx; choose another name with --out")
    deployed = model.without_aux().cpu().float().to(memory_format=torch.contiguous_format)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        _write(deployed, temporary)
        layers, zeros, total = count_zeros(temporary, deployed)
        absolute, relative = compare_outputs(temporary, deployed, tolerance=tolerance)
    height, width = deployed.size
    grid = deployed.grid
    return [
        str(path),
        f"{_INPUT} (N, 3, {height}, {width}), RGB with ImageNet's mean and std → "
        f"{_OUTPUT} (N, {grid.cells + 1}, {grid.rows}, {grid.lanes})",
        f"{zeros:,} of {total:,} weights in {layers} convolutions and linear layers are zero, and all "
        "are the network's",
        f"largest difference between ONNX Runtime and PyTorch: {absolute:.2g} in logits, "
        f"{relative:.2g} of the largest",
    ]


def count_zeros(path: Path, deployed: LaneNetwork) -> tuple[int, int, int]:
    """Layers, zeros and weights of all convolutions and linear layers in a file.

    Raises:
        DetpruneError: a weight is not in the file, or is another one there.
    """
    import onnx

    graph = onnx.load(path).graph
    held = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    # the exporter writes equal weights once, with Identity nodes for the others
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    layers = zeros = total = 0
    for name, module in deployed.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach().numpy()
            found = held.get(f"{name}.weight")
            if found is None or not np.array_equal(found, weight):
                raise DetpruneError(
                    f"{name}.weight in the ONNX file differs from the network's, so that its zeros are not "
                    "certain; nothing was written. Please report this with the version of torch"
                )
            layers += 1
            zeros += int(np.count_nonzero(found == 0))
            total += weight.size
    return layers, zeros, total


def compare_outputs(path: Path, deployed: LaneNetwork, *, tolerance: float) -> tuple[float, float]:
    """Largest difference of logits on random images, absolute and relative to the largest logit.

    Raises:
        NonFiniteError: the network itself gives NaN or infinity.
        DetpruneError: the part is above the tolerance, or an output of the file is not a number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    absolute = largest = 0.0
    for batch in _BATCHES:
        images = torch.randn(batch, 3, *deployed.size, generator=generator)
        with torch.inference_mode():
            expected = np.asarray(deployed(images))
        if not np.isfinite(expected).all():
            raise NonFiniteError(
                "the network gives NaN or infinite logits, so it is not exported; take an earlier "
                "checkpoint"
            )
        (output,) = session.run(None, {_INPUT: images.numpy()})
        if output.shape != expected.shape:
            raise DetpruneError(
                f"the ONNX file gives the shape {output.shape} where PyTorch gives {expected.shape}"
            )
        gap = np.nan_to_num(np.abs(output - expected), nan=np.inf)
        absolute = max(absolute, float(gap.max()))
        largest = max(largest, float(np.abs(expected).max()))
    relative = absolute / max(largest, float(np.finfo(np.float32).tiny))
    if not relative <= tolerance:
        raise DetpruneError(
            f"the logits of the ONNX file differ from PyTorch by {absolute:.3g}, {relative:.3g} of the "
            f"largest (allowed: {tolerance:g}), so it was not written; raise the tolerance if that is "
            "small enough for the purpose"
        )
    return absolute, relative


def _write(deployed: LaneNetwork, path: Path) -> None:
    import onnx

    with exporter_warnings_off():
        torch.onnx.export(
            deployed,
            (torch.zeros(1, 3, *deployed.size),),
            path,
            dynamo=False,  # the newer exporter needs onnxscript
            do_constant_folding=False,  # else batch norms would be folded into the weights
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_axes={_INPUT: {0: "batch"}, _OUTPUT: {0: "batch"}},
        )
    onnx.checker.check_model(path)
