# SPDX-License-Identifier: AGPL-3.0-or-later
"""Checks of an ONNX file against the network that it was exported from: padding and zeros."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.tasks import BaseModel

from detprune.errors import DetpruneError

_PAD_AXES = "detprune_pad_axes"
_PAD_AXES_OPSET = 18

Array = NDArray[np.float32]


@dataclass(frozen=True)
class LayerZeros:
    """Zeros of one weight in the exported file.

    Attributes:
        size: number of weights.
        masked: weights that are pruned; None where the checkpoint holds no masks.
        zeros: weights that are 0: the pruned ones, and kept ones too small for half precision.
    """

    size: int
    masked: int | None
    zeros: int


def write_pad_axes(path: Path) -> bool:
    """Write the axes of each Pad before a MaxPool explicitly, all of them; the network stays the same.

    ONNX Runtime's Pad_Fusion replaces zero padding by the pool's own, which is −∞: wrong wherever the
    border is negative (boxes off by 0.7 px at 64 px). It leaves a Pad with axes alone.
    Returns False where the file's opset knows no axes, so that such a Pad stays as it is.
    """
    import onnx

    graph = onnx.load(path)
    opset = next(o.version for o in graph.opset_import if o.domain in ("", "ai.onnx"))
    pooled = {node.input[0] for node in graph.graph.node if node.op_type == "MaxPool"}
    pads = [
        n
        for n in graph.graph.node
        if n.op_type == "Pad" and n.output[0] in pooled and len(n.input) < 4
    ]
    if not pads or opset < _PAD_AXES_OPSET:
        return not pads
    for node in pads:
        node.input.extend([""] * (3 - len(node.input)) + [_PAD_AXES])
    graph.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(4, dtype=np.int64), _PAD_AXES)
    )
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return True


def count_zeros(
    path: Path, fused: BaseModel, masks: Mapping[str, NDArray[np.bool_]] | None
) -> tuple[dict[str, LayerZeros], tuple[str, ...]]:
    """Zeros by layer, each found in the file by name or else by its values.

    Tools that simplify a file rename weights, and keep one of several equal ones.

    Args:
        fused: the network in float32 with its batch norms fused, as it was exported.
        masks: parameter name → True = kept; None counts every convolution.

    Returns:
        Parameter name → zeros; and the masked weights of branches that only training uses.

    Raises:
        DetpruneError: a weight is not in the file with the same zeros, or a pruned one is not zero.
    """
    import onnx

    graph = onnx.load(path).graph
    used = {
        n.input[1] for n in graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    }
    held = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name in used}
    own = {n: p.detach().numpy() for n, p in fused.named_parameters()}
    folded = _folded(fused)
    convolutions = [
        f"{n}.weight"
        for n, m in fused.named_modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d) and ".dfl." not in f".{n}"
    ]
    names = convolutions if masks is None else list(masks)
    # fusing drops the head's branch that only training uses, where there are several
    head = f"model.{len(list(fused.get_submodule('model').children())) - 1}."
    layers, absent = {}, []
    for name in names:
        if name not in own:
            if not name.startswith(head):
                raise DetpruneError(
                    f"{name} was merged into another weight by the export, so that its zeros are lost; "
                    "exclude this layer from pruning, or export without detprune"
                )
            absent.append(name)
            continue
        weight = own[name]
        candidates = [held[name]] if name in held else []
        candidates += [v for v in held.values() if v.shape == weight.shape]
        # of linear layers the file may hold the transpose
        candidates += [v.T for v in held.values() if v.ndim == 2 and v.T.shape == weight.shape]
        expected = [weight, folded[name]] if name in folded else [weight]
        found = next((c for c in candidates if any(_same(c, e) for e in expected)), None)
        if found is None:
            raise DetpruneError(
                f"{path.name} holds no weights equal to {name} with the same zeros, so the export changed "
                "the pruned network; please report this with the versions of ultralytics and onnxslim"
            )
        mask = None if masks is None else masks[name]
        if mask is not None and (alive := int(np.count_nonzero(found[~mask]))):
            raise DetpruneError(
                f"{name}: {alive:,} pruned weights are not zero in the exported file"
            )
        layers[name] = LayerZeros(
            size=int(weight.size),
            masked=None if mask is None else int(np.count_nonzero(~mask)),
            zeros=int(np.count_nonzero(found == 0)),
        )
    return layers, tuple(absent)


def _same(value: Array, weight: Array) -> bool:
    return (
        value.shape == weight.shape
        and np.array_equal(value == 0, weight == 0)
        and np.allclose(value, weight, rtol=1e-4, atol=1e-7)
    )


def _folded(network: nn.Module) -> dict[str, Array]:
    """Weights of convolutions with the batch norm behind them, where ``fuse`` leaves both, as RT-DETR's."""
    found = {}
    for prefix, sequence in network.named_modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for (name, conv), (_, norm) in pairwise(sequence.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                place = ".".join(part for part in (prefix, name, "weight") if part)
                found[place] = fuse_conv_bn_eval(conv.eval(), norm.eval()).weight.detach().numpy()
    return found
