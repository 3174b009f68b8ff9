# SPDX-License-Identifier: AGPL-3.0-or-later
"""Layers that give the outputs of a network, found by running it, whatever its head is and predicts."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from ultralytics.nn.modules.transformer import MLP

from detprune.channels.copying import copied
from detprune_yolo.forward import example, run_detector

_SIDE = 256
"""Side of the image in pixels: at least twice the largest stride, and enough places for the queries of RT-DETR."""


def output_weights(model: nn.Module) -> tuple[set[str], set[str]]:
    """Weights between which and an output there is no other, and weights that no output depends on.

    The former are the last layers of boxes, classes, masks, key points, angles or logits, in all branches of the head.
    Of a small stack of linear layers that ends in an output (RT-DETR's boxes) all layers count. The latter serve the
    loss alone, as the flow of yolo26's key points does.

    Args:
        model: a network of Ultralytics; it is copied, and stays as it is.
    """
    network = copied(model).float().eval()
    network.requires_grad_(True)
    head: Any = network.get_submodule("model")[-1]  # type: ignore[index]
    for module in head.modules():  # norms work as in evaluation, because there is one image
        module.training = not isinstance(module, nn.modules.batchnorm._NormBase)
    weights = {id(p): n for n, p in network.named_parameters() if p.dim() >= 2}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        outputs: Any = run_detector(network, example(network, _SIDE))
    starts = [t.grad_fn for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.grad_fn]
    last = {weights[id(p)] for p in _weights(starts, weights, further=False)}
    reached = {weights[id(p)] for p in _weights(starts, weights, further=True)}
    for name, module in network.named_modules():
        own = {f"{name}.{n}" for n, p in module.named_parameters() if p.dim() >= 2}
        if isinstance(module, MLP) and own & last:
            last |= own
    return last, set(weights.values()) - reached


def _weights(starts: Iterable[Any], weights: dict[int, str], *, further: bool) -> Iterator[Tensor]:
    """Weights in the graph of autograd, from the outputs to the first weights, or ``further`` to all."""
    stack, seen = list(starts), set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [function for function, _ in node.next_functions if function is not None]
        found = [p for p in map(_leaf, inputs) if p is not None and id(p) in weights]
        yield from found
        if further or not found:
            stack += inputs


def _leaf(node: Any) -> Tensor | None:
    """The parameter that a node of autograd passes on, as it is or in another shape; None for other nodes."""
    while node is not None and len(node.next_functions) == 1:
        node = node.next_functions[0][0]
    variable: Tensor | None = getattr(node, "variable", None)
    return variable
