"""Networks of one layer, in PyTorch and as ONNX files; their times depend on no values."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from detprune.channels.layer_kinds import LINEAR, TRANSPOSED, LayerKind
from detprune.errors import DetpruneError

_OPSET = 17


def input_shape(kind: LayerKind, inputs: int) -> tuple[int, ...]:
    """Shape of the input of a layer that reads ``inputs`` channels."""
    return (kind.batch, inputs, *kind.size)


def channels_read(kind: LayerKind, inputs: int, outputs: int) -> int:
    """Channels that a layer reads: those given, or those that the outputs of a grouped convolution fix."""
    return outputs // kind.group[1] * kind.group[0] if kind.group else inputs


def module(kind: LayerKind, inputs: int, outputs: int) -> nn.Module:
    """The layer in PyTorch, with a bias, in evaluation mode."""
    if kind.operation == LINEAR:
        return nn.Linear(inputs, outputs).eval()
    dims = len(kind.kernel)
    transposed = kind.operation in TRANSPOSED
    name = f"ConvTranspose{dims}d" if transposed else f"Conv{dims}d"
    layer: nn.Module = getattr(nn, name)(
        inputs,
        outputs,
        kind.kernel,
        stride=kind.stride,
        padding=kind.padding,
        dilation=kind.dilation,
        groups=outputs // kind.group[1] if kind.group else 1,
    )
    return layer.eval()


def write_layer(kind: LayerKind, inputs: int, outputs: int, path: Path) -> None:
    """Write the layer as an ONNX file with the input ``input0``.

    Raises:
        DetpruneError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise DetpruneError("single layers are written with onnx; pip install onnx") from error

    layer = module(kind, inputs, outputs)
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    shape = input_shape(kind, inputs)
    with torch.no_grad():
        written = list(layer(torch.zeros(shape)).shape)
    if kind.operation == LINEAR:
        node = helper.make_node("Gemm", ["input0", "weight", "bias"], ["output0"], transB=1)
    else:
        node = helper.make_node(
            "ConvTranspose" if kind.operation in TRANSPOSED else "Conv",
            ["input0", "weight", "bias"],
            ["output0"],
            kernel_shape=list(kind.kernel),
            strides=list(kind.stride),
            pads=[*kind.padding, *kind.padding],
            dilations=list(kind.dilation),
            group=outputs // kind.group[1] if kind.group else 1,
        )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("input0", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, written)],
        [numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 9  # the oldest that this opset needs: older runtimes read it
    onnx.save(model, path)
