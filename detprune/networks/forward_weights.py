"""Weights that a module's own forward changes on their way into its convolution or product, such as weight
standardisation: zeros of the parameter may be none of the weight that is used, though every count finds them.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

_USES = (
    *(F.conv1d, F.conv2d, F.conv3d, F.linear),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
)
_SIDE = 8  # pixels of the input beyond the kernel, so that any stride finds some


class _Uses(TorchFunctionMode):
    """Collects the weights that convolutions and products take."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _USES:
            weight = args[1] if len(args) > 1 else (kwargs or {}).get("weight")
            if isinstance(weight, Tensor):
                self.weights.append(weight)
        return func(*args, **(kwargs or {}))


def has_own_forward(module: nn.Module) -> TypeGuard[nn.Linear | _ConvNd]:
    """Whether it is a convolution or linear layer of a class that hands the weight on in a way of its own."""
    if not isinstance(module, nn.Linear | _ConvNd):
        return False
    methods = (getattr(type(module), name, None) for name in ("forward", "_conv_forward"))
    return any(m is not None and m.__module__.partition(".")[0] != "torch" for m in methods)


def loses_zeros(module: nn.Linear | _ConvNd, pruned: Tensor) -> bool:
    """Whether a convolution or linear layer uses numbers other than 0 where its weight is 0.

    A copy is run on zeros. What cannot be copied or run like that counts as keeping its zeros.

    Args:
        module: the layer, which does not change.
        pruned: its weight with some zeros.
    """
    if pruned.is_meta:
        return False
    uses = _Uses()
    drawn_on = [pruned.device] if pruned.is_cuda else []
    # whatever a forward of somebody else raises on an input that it was not made for
    with contextlib.suppress(Exception):
        probe = copy.deepcopy(module)
        for hooks in (probe._forward_hooks, probe._forward_pre_hooks):
            hooks.clear()
        with torch.no_grad(), torch.random.fork_rng(devices=drawn_on):
            probe.weight.copy_(pruned)
            inputs = torch.zeros(_shape(module), dtype=pruned.dtype, device=pruned.device)
            with uses:
                probe(inputs)
    zero = pruned == 0
    return any(
        used.shape == pruned.shape and bool((used.detach()[zero] != 0).any())
        for used in uses.weights
    )


def _shape(module: nn.Linear | _ConvNd) -> tuple[int, ...]:
    if isinstance(module, nn.Linear):
        return (2, module.in_features)
    reach = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return (2, module.in_channels, *(_SIDE + r for r in reach))
