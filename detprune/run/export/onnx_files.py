"""Writing ONNX files, and running them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detprune.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CPU = "CPUExecutionProvider"


def check_request(path: Path, packages: Sequence[str], extra: str) -> None:
    """Refuse a file name or an installation with which nothing can be exported.

    Args:
        path: the file that is asked for.
        packages: that export and checks need.
        extra: of detprune, which installs them.

    Raises:
        InputError: another ending than ``.onnx``, or a package is missing.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise InputError(
            f"export to ONNX needs {', '.join(missing)}, not installed here; install with: "
            f"pip install 'detprune[{extra}]'"
        )
    if path.suffix != ".onnx":
        raise InputError(f"{path} has to end in .onnx; choose another name with --out")


def write_onnx(
    network: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    *,
    inputs_named: Sequence[str] | None = None,
    outputs_named: Sequence[str] | None = None,
    any_batch: bool = False,
    fold: bool = True,
) -> None:
    """Export a network as it is; raises whatever torch's exporter does.

    Args:
        network: in evaluation mode.
        inputs: what it is called with.
        path: the file.
        inputs_named, outputs_named: in the file; ``input0``, ``input1``, … and torch's own names by default.
        any_batch: leave the first dimension of inputs and outputs open.
        fold: work out what depends on weights alone, batch norms among it, which changes the weights in the file.
    """
    first = list(inputs_named or [f"input{i}" for i in range(len(inputs))])
    named = [*first, *(outputs_named or [])]
    with exporter_warnings_off(), torch.no_grad():
        torch.onnx.export(
            network,
            tuple(inputs),
            path,
            dynamo=False,  # the other exporter needs onnxscript
            do_constant_folding=fold,
            input_names=first,
            output_names=None if outputs_named is None else list(outputs_named),
            dynamic_axes={name: {0: "batch"} for name in named} if any_batch else None,
        )


def session(
    path: Path,
    *,
    threads: int | None = None,
    provider: str = CPU,
    disabled: Sequence[str] = (),
) -> "InferenceSession":
    """ONNX Runtime with a file, quiet.

    Args:
        threads: of the processor; as many as PyTorch uses by default.
        provider: what runs it.
        disabled: optimizations that are left out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        path, options, providers=[provider], disabled_optimizers=list(disabled)
    )


def weights_in(path: Path) -> Mapping[str, NDArray[Any]]:
    """The constants of a file by name; of equal ones the exporter writes one, and names for the others."""
    import onnx

    graph = onnx.load(path).graph
    held = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    return held


def largest_gap(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference of two outputs; infinite where one of them is no number."""
    gap = np.nan_to_num(np.abs(found - expected), nan=np.inf)
    return float(gap.max()) if gap.size else 0.0


@contextmanager
def exporter_warnings_off() -> Iterator[None]:
    """Silence what torch's exporter says about itself and about traced shapes, and nothing else."""
    with warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1", UserWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
