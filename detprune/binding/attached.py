"""A method bound to a model and its optimizer: the work of every step, until the method is detached."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.binding.checks import (
    check_attachable,
    check_bound,
    check_choice,
    check_length,
    present_layers,
)
from detprune.binding.extrapolation import ExtrapolatedWeights
from detprune.binding.hooks import OptimizerHooks
from detprune.binding.inference import outside_inference_mode
from detprune.binding.losses import MeanLoss
from detprune.binding.watch import StepWatch
from detprune.budgets import Budget
from detprune.channels.bound import BoundChannels
from detprune.layers import select_layers
from detprune.methods import Method, OuterIteration, Pace, Problem, State
from detprune.methods.base import OptimizerRates
from detprune.networks.optimizers import may_keep_copies, usable_optimizer, zero_copies
from detprune.networks.wrappers import unwrap
from detprune.sets import SparsitySet


class AttachedMethod:
    """The part of a `Pruner` that runs at every step: hooks that call the method, and hold zeros after hard pruning.

    Arguments and errors are those of `Pruner`, which adds outer iterations, hard pruning and saving.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        method: Method,
        sparsity_set: SparsitySet | None = None,
        budget: Budget | None = None,
        *,
        steps_per_update: int | None = None,
        updates: int | None = None,
    ) -> None:
        self.model = unwrap(model)
        self.method, self.sparsity_set, self.budget = check_choice(method, sparsity_set, budget)
        self.steps_per_update = check_length("steps_per_update", steps_per_update)
        self.updates = check_length("updates", updates)
        optimizer = None if optimizer is None else usable_optimizer(optimizer)
        bound = self.sparsity_set.for_network(self.model, self.budget, optimizer)
        self.layers = select_layers(self.model, bound, self.budget, optimizer)
        self.history: list[OuterIteration] = []
        self._problem = Problem(
            names=[layer.name for layer in self.layers],
            weights=[layer.weight for layer in self.layers],
            sparsity_set=bound,
            sparsities=[layer.sparsity for layer in self.layers],
            jointly=self.budget.scope == "global",
        )
        self._outside: list[Tensor] | None = None
        self._losses = MeanLoss()
        self._withheld: list[Tensor | None] = []
        self._optimizer = optimizer
        self._rates: OptimizerRates | None = None
        self._hooks: OptimizerHooks | None = None
        self._extrapolated: ExtrapolatedWeights | None = None
        self._watch: StepWatch | None = None
        self._steps_before = 0
        self._keeps_copies = False
        # ``start`` may refuse the optimizer, so it comes before any hook
        self._state: State = method.start(self._problem, self._pace())
        self.attach(optimizer)

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """Boolean supports by name after ``hard_prune``, None before."""
        if self._outside is None:
            return None
        return {n: ~outside for n, outside in zip(self._problem.names, self._outside, strict=True)}

    @outside_inference_mode
    def attach(self, optimizer: Optimizer | None) -> None:
        """Bind to another optimizer, for example the one of masked retraining; None binds to no optimizer.

        If the model's parameters were replaced (``load_state_dict(assign=True)``), the new ones are used. Masked
        weights become zero again, and the pruner's tensors move to the model's device.

        Raises:
            InputError: the optimizer does not hold the weights, or another pruner is bound to it.
        """
        optimizer = None if optimizer is None else usable_optimizer(optimizer)
        layers = present_layers(self.model, self.layers)
        self.detach()
        if optimizer is not None:
            check_attachable(layers, optimizer, pruned=self._outside is not None)
        self.layers = layers
        self._problem = replace(self._problem, weights=[layer.weight for layer in layers])
        for values in self._state.tensors.values():
            values[:] = [v.to(w.device) for v, w in zip(values, self._problem.weights, strict=True)]
        self._optimizer = optimizer
        self._bind()

    def _channels_kept(self) -> list[int] | None:
        """Groups kept per tie of families; saved, because an allocation by norm depends on the weights at the start."""
        bound = self._problem.sparsity_set
        return [int(n) for n in bound.counts] if isinstance(bound, BoundChannels) else None

    def _take_up(self, bound: BoundChannels) -> None:
        """Continue with the numbers of channels of a saved state."""
        self.layers = [replace(x, sparsity=bound.sparsity(i)) for i, x in enumerate(self.layers)]
        sparsities = [layer.sparsity for layer in self.layers]
        self._problem = replace(self._problem, sparsity_set=bound, sparsities=sparsities)

    def _weights_by_name(self) -> dict[str, Tensor]:
        return dict(zip(self._problem.names, self._problem.weights, strict=True))

    def _bind(self) -> None:
        optimizer = self._optimizer
        self._keeps_copies = optimizer is not None and may_keep_copies(optimizer)
        if (masks := self.masks) is not None:  # the model may be on another device by now
            self._place_masks(list(masks.values()))
        if optimizer is None:
            return
        weights = self._problem.weights
        if self.method.extrapolates and self._outside is None:  # may refuse, so before other hooks
            self._extrapolated = ExtrapolatedWeights(
                self.model,
                self.layers,
                lambda index, weight: self.method.extrapolated(self._state, index, weight),
                type(self.method).__name__,
            )
        self._hooks = OptimizerHooks(optimizer, weights, self._before_step, self._after_step)
        earlier = (self._steps_before, self._losses.count)
        self._watch = StepWatch(weights, self._problem.names, self._own_writes, earlier)

    def _steps(self) -> int:
        """Optimizer steps of the present outer iteration that were seen, with this optimizer or one before it."""
        watch = self._watch
        return self._steps_before if watch is None else watch.steps + watch.earlier_steps

    def _unbound(self) -> None:
        self._steps_before = self._steps()
        self._hooks, self._extrapolated, self._watch = None, None, None
        self._keeps_copies = False

    def _check_bound(self) -> None:
        pruned = self._outside is not None
        check_bound(self.model, self.layers, self._optimizer, pruned=pruned)

    def _own_writes(self) -> Sequence[int]:
        if self._extrapolated is None:
            return [0] * len(self.layers)
        return self._extrapolated.writes

    def detach(self) -> None:
        """Remove every hook from model and optimizer; the weights stay as they are."""
        if self._hooks is not None:
            self._hooks.remove()
        if self._extrapolated is not None:
            self._extrapolated.remove()
        self._unbound()
        self._optimizer = None

    def __getstate__(self) -> dict[str, Any]:
        """State of a copy or a pickle, without hooks; the copy continues from W, even if it was made at Ŵ."""
        state = dict(vars(self))
        for hook in ("_hooks", "_extrapolated", "_watch"):
            state[hook] = None
        state["_steps_before"] = self._steps()
        state["_swapped"] = {}
        if self._extrapolated is not None:
            swapped = self._extrapolated.swapped_weights()
            state["_swapped"] = {i: w.clone() for i, w in swapped.items()}
            self._extrapolated.restore_all()
        return state

    @torch.no_grad()
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hook the copy to its own model and optimizer.

        Raises:
            InputError: the copy is shallow, so that it would be the second pruner on one optimizer.
        """
        swapped = state.pop("_swapped")
        vars(self).update(state)
        for index, weight in swapped.items():  # the model may have been copied while it was at Ŵ
            self._problem.weights[index].copy_(weight)
        if self._optimizer is not None:
            check_attachable(self.layers, self._optimizer, pruned=self._outside is not None)
            self._bind()

    def _before_step(self, skipped: bool = False) -> None:
        if self._outside is not None:
            if self._watch is not None and not skipped:
                self._watch.see_gradients()
            return
        if self._extrapolated is not None:
            self._extrapolated.end_step()
        if not skipped:
            if self._watch is not None:
                self._watch.see_gradients()
            self.method.before_step(self._problem, self._state, self._pace())
        if self.method.replaces_optimizer:
            self._withheld = [weight.grad for weight in self._problem.weights]
            for weight in self._problem.weights:
                weight.grad = None

    def _after_step(self) -> None:
        if self._watch is not None:
            self._watch.steps += 1
        if self._outside is not None:
            self._zero_outside()
            return
        if self._withheld:
            for weight, grad in zip(self._problem.weights, self._withheld, strict=True):
                weight.grad = grad
            self._withheld = []
        self.method.after_step(self._problem, self._state)

    def _place_masks(self, masks: Sequence[Tensor]) -> None:
        """Store the masks on the weights' devices, and set the masked weights to zero.

        They are stored inverted (True where a weight is zero): inverting them at every step costs memory and time.
        """
        self._outside = [
            ~mask.to(weight.device)
            for mask, weight in zip(masks, self._problem.weights, strict=True)
        ]
        self._zero_outside()

    @torch.no_grad()
    def _zero_outside(self) -> None:
        for weight, outside in zip(self._problem.weights, self._outside or [], strict=True):
            weight.masked_fill_(outside, 0.0)
        if self._keeps_copies and self._optimizer is not None:
            zero_copies(self._optimizer, self._problem.weights, self._outside or [])

    def _pace(self) -> Pace:
        rates, weights = self._rates, self._problem.weights
        if rates is None or rates.optimizer is not self._optimizer or rates.weights is not weights:
            self._rates = rates = OptimizerRates(self._optimizer, weights)
        return Pace(rates.now(), self.steps_per_update, self.updates)
