# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a network of Ultralytics is run to see its raw outputs: for channels, and for the layers that give them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect, RTDETRDecoder

_OF_INFERENCE = ("export", "anchors", "strides", "shape", "shapes", "valid_mask")
_ABSENT = object()


def run_detector(model: nn.Module, *inputs: Tensor) -> Any:
    """Raw outputs of a network, such as boxes, scores and masks; in training mode, those of all branches of its head.

    In evaluation mode of the branch alone that inference uses, which is what a fused or exported network
    computes. The features that go into the head are no outputs, though Ultralytics returns them.

    Args:
        model: a network of Ultralytics; it stays as it is.
        inputs: images, (N, channels, height, width).

    Returns:
        The outputs of each branch by name; of a classifier what it returns; of RT-DETR, in evaluation mode, what its
        decoder gets.
    """
    head: Any = model.get_submodule("model")[-1]  # type: ignore[index]
    if isinstance(head, RTDETRDecoder) and not head.training:
        return _into_decoder(model, head, *inputs)
    with _for_inference(head):
        outputs: Any = model(*inputs)
    if not isinstance(head, Detect):
        return outputs
    raw: Any = outputs if head.training else outputs[1]
    branches = [raw["one2many"], raw["one2one"]] if "one2one" in raw else [raw]
    return [{k: v for k, v in own.items() if k != "feats"} for own in branches if own]


def _into_decoder(model: nn.Module, head: Any, *inputs: Tensor) -> list[Tensor]:
    """What the decoder of RT-DETR gets, of each level; the whole network runs.

    The decoder's own outputs cannot be compared: it takes the best of thousands of places, and a change by rounding
    takes others.
    """
    found: list[Tensor] = []
    hooks = [
        level.register_forward_hook(lambda module, given, output: found.append(output))
        for level in head.input_proj
    ]
    try:
        with _for_inference(head):
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def _for_inference(head: Any) -> Iterator[None]:
    """Run a head without the branch that fusing removes, unless it is in training mode; restore it afterwards."""
    held = {name: vars(head).get(name, _ABSENT) for name in _OF_INFERENCE}
    double = getattr(head, "one2one_cv2", None) is not None and head.cv2 is not None
    prefix = "" if double and head.end2end else "one2one_"
    twins = [n.removeprefix("one2one_") for n in head._modules if n.startswith("one2one_")]
    idle = twins if double and not head.training else []
    parts = {f"{prefix}{name}": getattr(head, f"{prefix}{name}") for name in idle}
    try:
        head.export = False
        for name in parts:
            setattr(head, name, None)
        yield
    finally:
        for name, part in parts.items():
            setattr(head, name, part)
        for name, value in held.items():
            if value is not _ABSENT:
                setattr(head, name, value)
            else:
                vars(head).pop(name, None)


def example(model: nn.Module, imgsz: int | Sequence[int]) -> Tensor:
    """An image of noise, (1, channels, height, width), on the model's device."""
    weight = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).weight
    size = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz)
    noise = torch.rand(1, weight.shape[1], *size, generator=torch.Generator().manual_seed(0))
    return noise.to(weight.device, weight.dtype)
