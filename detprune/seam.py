"""How the pruner binds to training it does not own: PyTorch's optimizer step hooks, and for methods
that take gradients elsewhere than at W, module and gradient hooks.

Traps handled here:
- Some trainers (Lightning) run forward and backward inside ``optimizer.step(closure)``: the penalty
  then belongs after the closure, not before the step.
- A GradScaler leaves unscaling to fused optimizers: gradients are still scaled when the step begins.
- Forward hooks are deep-copied into EMAs and pickled with whole models: copies must do nothing, and
  loading them must not need detprune.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from detprune.errors import InputError


class OptimizerSeam:
    """Calls ``before`` when gradients are final and ``after`` when the weights have moved.

    ``before`` is told whether the optimizer will skip the step, for a GradScaler found infinities.
    """

    def __init__(
        self, optimizer: Optimizer, before: Callable[[bool], None], after: Callable[[], None]
    ) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InputError(
                "the optimizer is LBFGS, whose line search evaluates the loss several times a step "
                "without the penalty; use SGD, Adam or another first-order optimizer"
            )
        self._before, self._after = before, after
        self._handles = [
            optimizer.register_step_pre_hook(self._on_step),
            optimizer.register_step_post_hook(self._on_stepped),
        ]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _on_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        positional = len(args) > 1  # args[0] is the optimizer
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            skipped = _found_inf(optimizer)
            if not skipped:
                _unscale(optimizer)
            self._before(skipped)
            return None

        def closure_then_before() -> Any:
            loss = closure()
            self._before(False)
            return loss

        if positional:
            return (args[0], closure_then_before, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_then_before}

    def _on_stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._after()


def _found_inf(optimizer: Optimizer) -> bool:
    """Whether a GradScaler told a fused optimizer to skip this step."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.item())


def _unscale(optimizer: Optimizer) -> None:
    """Do what a GradScaler left to a fused optimizer, so that gradients have their true size."""
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(scale.to(parameter.grad.device))
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def start_momentum(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    """Let fused SGD take in parameters that had no gradient so far: it fails where only some have a buffer.

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


class Lookahead:
    """Shows Ŵ to training forwards and backwards, and W to everything else.

    A weight is swapped when its own module runs forward in training mode with gradients on, and
    swapped back as soon as its gradient has been accumulated; an evaluation, a ``state_dict()`` or
    the next optimizer step find W even if no backward came.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Sequence[nn.Module],
        weights: Sequence[Tensor],
        point: Callable[[int, Tensor], Tensor],
    ) -> None:
        self._weights, self._point = weights, point
        self._backups = [torch.empty_like(weight.detach()) for weight in weights]
        self._swapped = [False] * len(weights)
        self._handles: list[RemovableHandle] = []
        for index, (module, weight) in enumerate(zip(modules, weights, strict=True)):
            self._handles += [
                module.register_forward_pre_hook(_ForwardHook(self, index)),
                weight.register_post_accumulate_grad_hook(lambda _, i=index: self.restore(i)),
            ]
        for module in model.modules():
            self._handles.append(module.register_state_dict_pre_hook(_StateDictHook(self)))

    def remove(self) -> None:
        """Restore W and take all hooks off."""
        self.restore_all()
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def swap(self, index: int) -> None:
        """Put Ŵ into the weight, unless it is there."""
        if not self._swapped[index]:
            weight = self._weights[index]
            self._backups[index].copy_(weight)
            weight.copy_(self._point(index, weight))
            self._swapped[index] = True

    @torch.no_grad()
    def restore(self, index: int) -> None:
        """Put W back, unless it is there."""
        if self._swapped[index]:
            self._weights[index].copy_(self._backups[index])
            self._swapped[index] = False

    def restore_all(self) -> None:
        """Put every W back."""
        for index in range(len(self._weights)):
            self.restore(index)


class _ForwardHook:
    """Swaps for training forwards; its copies and pickles are the method ``get`` of an empty
    dictionary, which, called as hook(module, arguments), returns the arguments unchanged."""

    def __init__(self, lookahead: Lookahead, index: int) -> None:
        self._lookahead, self._index = lookahead, index

    def __call__(self, module: nn.Module, args: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._lookahead.swap(self._index)
        else:
            self._lookahead.restore(self._index)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return {}.get

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, ({}, "get")


class _StateDictHook:
    """Restores W for a ``state_dict()``; its copies and pickles are the builtin ``slice``, which takes
    hook(module, prefix, keep_vars) and has no effect."""

    def __init__(self, lookahead: Lookahead) -> None:
        self._lookahead = lookahead

    def __call__(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._lookahead.restore_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return slice

    def __reduce__(self) -> tuple[Any, ...]:
        return type, (slice(None),)
