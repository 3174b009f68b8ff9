"""ONNX files of networks of one input and one output, checked before they get their name.

The check covers the weights (those of all convolutions and linear layers are in the file bit by bit, so
that its zeros are the network's) and the outputs (ONNX Runtime against PyTorch on the same inputs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detprune.errors import DetpruneError, NonFiniteError
from detprune.files.atomic import atomic
from detprune.layers import PRUNED_MODULES
from detprune.networks.finite import check_finite
from detprune.run.export.onnx_files import (
    check_request,
    largest_gap,
    session,
    weights_in,
    write_onnx,
)

_PACKAGES = ("onnx", "onnxruntime")
_BATCHES = (1, 2)  # batch sizes of the comparison; the file allows any


@dataclass(frozen=True)
class Checked:
    """What was found in a file.

    Attributes:
        layers, zeros, total: convolutions and linear layers, and the zeros among all of their weights.
        absolute, relative: largest difference of outputs, as it is and as a part of the largest output.
    """

    layers: int
    zeros: int
    total: int
    absolute: float
    relative: float

    def lines(self, outputs: str) -> list[str]:
        """Two lines to print.

        Args:
            outputs: what the network gives, such as logits.
        """
        return [
            f"{self.zeros:,} of {self.total:,} weights in {self.layers} convolutions and linear layers are zero, "
            "and all are the network's",
            f"largest difference between ONNX Runtime and PyTorch: {self.absolute:.2g} in {outputs}, "
            f"{self.relative:.2g} of the largest",
        ]


def export_onnx(
    network: nn.Module,
    shape: Sequence[int],
    path: Path,
    *,
    extra: str,
    names: tuple[str, str] = ("images", "logits"),
    tolerance: float = 1e-4,
) -> Checked:
    """Write a network in float32 and check it; nothing is written if a check fails.

    The number of samples is open. Batch norms stay nodes of their own, since folding them would change the
    weights; runtimes fold them on loading.

    Args:
        network: in evaluation mode, float32, on the CPU; is not changed.
        shape: of one sample.
        path: the ``.onnx`` file.
        extra: of detprune, which installs what is needed.
        names: of input and output in the file.
        tolerance: allowed difference of outputs, as a part of the largest one.

    Raises:
        InputError: another file name, or a package is missing.
        NonFiniteError: the network holds or gives NaN or infinity.
        DetpruneError: weights or outputs of the file differ from the network's.
    """
    check_request(path, _PACKAGES, extra)
    check_finite(network, "the network to be exported")
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        write_onnx(
            network,
            (torch.zeros(1, *shape),),
            temporary,
            inputs_named=names[:1],
            outputs_named=names[1:],
            any_batch=True,
            fold=False,
        )
        onnx.checker.check_model(temporary)
        layers, zeros, total = count_zeros(temporary, network)
        absolute, relative = compare_outputs(temporary, network, shape, tolerance=tolerance)
    return Checked(layers, zeros, total, absolute, relative)


def count_zeros(path: Path, network: nn.Module) -> tuple[int, int, int]:
    """Layers, zeros and weights of all convolutions and linear layers in a file.

    Raises:
        DetpruneError: a weight is not in the file, or is another one there.
    """
    held = weights_in(path)
    layers = zeros = total = 0
    for name, module in network.named_modules():
        if not isinstance(module, PRUNED_MODULES):
            continue
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


def compare_outputs(
    path: Path, network: nn.Module, shape: Sequence[int], *, tolerance: float
) -> tuple[float, float]:
    """Largest difference of outputs on random inputs, as it is and as a part of the largest output.

    Raises:
        NonFiniteError: the network itself gives NaN or infinity.
        DetpruneError: the part is above the tolerance, or an output of the file is not a number.
    """
    runtime = session(path)
    (given,) = runtime.get_inputs()
    (output,) = runtime.get_outputs()
    generator = torch.Generator().manual_seed(0)
    absolute = largest = 0.0
    for batch in _BATCHES:
        values = torch.randn(batch, *shape, generator=generator)
        with torch.inference_mode():
            expected = np.asarray(network(values))
        if not np.isfinite(expected).all():
            raise NonFiniteError(
                f"the network gives NaN or infinite {output.name}, so it is not exported; take an earlier "
                "checkpoint"
            )
        (found,) = runtime.run(None, {given.name: values.numpy()})
        if found.shape != expected.shape:
            raise DetpruneError(
                f"the ONNX file gives the shape {found.shape} where PyTorch gives {expected.shape}"
            )
        absolute = max(absolute, largest_gap(found, expected))
        largest = max(largest, float(np.abs(expected).max()))
    relative = absolute / max(largest, float(np.finfo(np.float32).tiny))
    if not relative <= tolerance:
        raise DetpruneError(
            f"the {output.name} of the ONNX file differ from PyTorch by {absolute:.3g}, {relative:.3g} of the "
            f"largest (allowed: {tolerance:g}), so it was not written; raise the tolerance if that is "
            "small enough for the purpose"
        )
    return absolute, relative
