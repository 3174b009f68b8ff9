"""Checks of an optimizer for a pruner: its step hooks run when the weights move, it holds the weights, and its
copies of the weights are found.

A wrapper is removed if the optimizer inside moves the weights. Wrappers that move weights themselves after the
inner step (Lookahead) must run step hooks of their own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.errors import InputError

_PASS_ON = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")
"""Packages whose wrappers leave the step to the optimizer inside."""

_COPIES = frozenset(
    {
        "z",  # schedulefree
        "ax",  # torch.optim.ASGD
        "slow_params",
        "slow_param",
        "slow_buffer",
        "slow_weights",
        "lookahead_params",  # Ranger21
        "lookahead_slow_buff",  # timm
        "backup_params",
        "shadow",
        "param_buffer",
        "ema",
    }
)
"""Names under which optimizers keep a second copy of the weights in their state."""


def usable_optimizer(optimizer: object) -> Optimizer:
    """Return the optimizer whose step hooks run when the weights move: the given one, or the one inside a wrapper.

    Raises:
        InputError: the value is no optimizer, or its steps cannot be seen.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"the optimizer is {_described(optimizer)}; {_instead_of(optimizer)}")
    name = type(optimizer).__name__
    inner = _inner(optimizer)
    if type(optimizer).__module__.partition(".")[0] in _PASS_ON and inner is not None:
        return usable_optimizer(inner[1])
    if callable(getattr(optimizer, "first_step", None)):  # sharpness-aware minimisation
        if inner is None:
            raise InputError(
                f"the optimizer is {name}, whose first_step and second_step move the weights without step(), so "
                "that the pruner cannot follow; use a SAM with a base_optimizer"
            )
        return usable_optimizer(inner[1])
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError(
            "the optimizer is LBFGS, whose line search evaluates the loss several times a step "
            "without the penalty; use SGD, Adam or another first-order optimizer"
        )
    runs_hooks = getattr(type(optimizer).step, "hooked", False)
    if not (runs_hooks and "_optimizer_step_pre_hooks" in vars(optimizer)):
        way_out = f"pass the optimizer inside (.{inner[0]})" if inner else "pass a plain optimizer"
        raise InputError(
            f"the optimizer is {name}, whose step() runs none of PyTorch's step hooks, so that the pruner cannot "
            f"follow; {way_out} and train with it"
        )
    return optimizer


def _inner(optimizer: Any) -> tuple[str, Optimizer] | None:
    """The optimizer inside a wrapper, with the name of the attribute."""
    for name in ("base_optimizer", "_base_optimizer", "optimizer", "_optimizer", "optim", "base"):
        inner = getattr(optimizer, name, None)
        if isinstance(inner, Optimizer) and inner is not optimizer:
            return name, inner
    return None


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _instead_of(value: object) -> str:
    if isinstance(value, type):
        return "make one: SGD(model.parameters(), lr=0.1)"
    if isinstance(value, list | tuple) and any(isinstance(entry, Optimizer) for entry in value):
        return "pass one of them, and include=[…] or exclude=[…] for the weights that it holds"
    if (inner := _inner(value)) is not None:
        return f"pass the optimizer inside (.{inner[0]}) and train with it"
    return "pass a torch.optim.Optimizer, or None for a pruner that only prunes"


def held_by(optimizer: Optimizer) -> set[int]:
    """Identities of the parameters that an optimizer holds."""
    return {id(held) for group in optimizer.param_groups for held in group["params"]}


def held_of(optimizer: Optimizer | None, model: nn.Module) -> set[int] | None:
    """``held_by`` of an optimizer that holds something of the model; None without one.

    Raises:
        InputError: it holds nothing of it.
    """
    held = None if optimizer is None else held_by(optimizer)
    if held is not None and held.isdisjoint(id(parameter) for parameter in model.parameters()):
        raise InputError(
            "the optimizer holds no parameter of the model: it was made for another model, or for a copy; make it "
            "from model.parameters() of the model that you pass, and train with it"
        )
    return held


def may_keep_copies(optimizer: Optimizer) -> bool:
    """Whether an optimizer may keep copies of the weights in its state; few of PyTorch's own do."""
    own = type(optimizer).__module__.startswith("torch.optim")
    return not own or isinstance(optimizer, torch.optim.ASGD)


@torch.no_grad()
def zero_copies(optimizer: Optimizer, weights: Sequence[Tensor], outside: Sequence[Tensor]) -> None:
    """Set the optimizer's own copies of the weights to zero outside the masks.

    Args:
        optimizer: one that may write its copies back outside ``step``, as schedulefree's ``eval()`` does.
        weights: the parameters.
        outside: True where a weight is masked.
    """
    for weight, masked in zip(weights, outside, strict=True):
        state = optimizer.state.get(weight) or {}
        for key in _COPIES.intersection(state):
            copy = state[key]
            if isinstance(copy, Tensor) and copy.shape == weight.shape:
                copy.masked_fill_(masked.to(copy.device), 0.0)


def start_momentum(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    """Give parameters without a gradient so far a momentum buffer, because fused SGD fails if only some have one.

    A buffer of zeros becomes the first gradient, as it does without one.
    """
    for group in optimizer.param_groups:
        if not (isinstance(optimizer, torch.optim.SGD) and group["fused"] and group["momentum"]):
            continue
        if group["dampening"]:
            continue
        held = {id(parameter) for parameter in group["params"]}
        for parameter in parameters:
            if id(parameter) in held and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
