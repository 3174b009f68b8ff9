"""The hooks of a pruner on the steps of an optimizer.

Traps handled here:
- Some trainers (Lightning) run forward and backward inside ``optimizer.step(closure)``: the penalty
  then belongs after the closure, not before the step.
- A GradScaler leaves unscaling to fused optimizers: gradients are still scaled when the step begins.
- Two pruners that follow one optimizer with the same weights would undo each other's work.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from detprune.errors import InputError

_LIVE: "weakref.WeakSet[OptimizerHooks]" = weakref.WeakSet()


def refuse_second_pruner(optimizer: Optimizer, weights: Sequence[Tensor]) -> None:
    """Refuse an optimizer that another pruner is bound to with some of the same weights."""
    wanted = {id(weight) for weight in weights}
    for other in _LIVE:
        if other.optimizer() is optimizer and any(id(w) in wanted for w in other.weights):
            raise InputError(
                "another pruner is bound to this optimizer and prunes the same weights; call detach() on it "
                "first, or make a new optimizer"
            )


class OptimizerHooks:
    """Calls ``before`` when gradients are final, and ``after`` when the optimizer has moved the weights.

    The argument of ``before`` says whether the optimizer will skip the step, because a GradScaler found infinities.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        weights: Sequence[Tensor],
        before: Callable[[bool], None],
        after: Callable[[], None],
    ) -> None:
        self.optimizer, self.weights = weakref.ref(optimizer), list(weights)
        self._before, self._after = before, after
        self._handles = [
            optimizer.register_step_pre_hook(self._on_step),
            optimizer.register_step_post_hook(self._on_stepped),
        ]
        _LIVE.add(self)

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        _LIVE.discard(self)

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
    """Unscale gradients, which a GradScaler leaves to a fused optimizer, so that they have their true size."""
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(scale.to(parameter.grad.device))
    optimizer.grad_scale = None  # type: ignore[attr-defined]
