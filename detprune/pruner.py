"""The pruner: one object between a model, its optimizer and a pruning method."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from detprune.binding.checks import (
    StepWatch,
    check_attachable,
    check_bound,
    check_kind,
    check_length,
    check_zeros,
    present_layers,
)
from detprune.binding.extrapolation import ExtrapolatedWeights
from detprune.binding.hooks import OptimizerSeam
from detprune.binding.losses import MeanLoss, as_number
from detprune.binding.saved import check_masks, check_saved_state
from detprune.budgets import Budget
from detprune.channels import BoundChannels
from detprune.channels.removal import Kept, carry_over, removed
from detprune.errors import InputError, MissingLossError, NonFiniteError
from detprune.layers import select_layers
from detprune.loggers import logger
from detprune.methods import METHODS, Method, OneShot, OuterIteration, Pace, Problem, State
from detprune.methods.base import OptimizerRates
from detprune.networks.finite import check_finite, listed, not_finite
from detprune.networks.optimizers import (
    may_keep_copies,
    start_momentum,
    usable_optimizer,
    zero_copies,
)
from detprune.networks.wrappers import unwrap
from detprune.projections import zero_outside
from detprune.sets import SparsitySet, Unstructured
from detprune.summary import Summary, summarize

LOGGER = logger(__name__)


class Pruner:
    """Prunes ``model`` under constraints while somebody else's loop trains it.

    Two phases. Constrained training: the method acts on every optimizer step, and ``update`` ends an
    outer iteration. After ``hard_prune``: masked weights are exactly 0.0 after every step.

    Args:
        model: the network, also inside DistributedDataParallel, ``torch.compile`` or Lightning Fabric.
        optimizer: the optimizer that trains it, also as accelerate or Fabric wrap it; None for a pruner
            that only prunes.
        method: ``SLR()``, ``ADMM()``, ``SASADMM()``, or a baseline: ``GradualMagnitude()``, ``DPF()``,
            ``Magnitude()``, ``OneShot()``.
        sparsity_set: what structure is kept; ``Unstructured()`` by default.
        budget: how much is kept, and which weights are pruned; may be left out for sets that fix
            their own sparsity (n:m).
        steps_per_update, updates: optimizer steps in an outer iteration and number of outer
            iterations, which ρ by pull is worked out from.

    Raises:
        InputError: weights that cannot be pruned as asked, all of them listed; an optimizer that does not
            hold them, or that another pruner follows already.
    """

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
        self.method = check_kind(method, Method, "method", "SLR()")
        self.sparsity_set = (
            Unstructured()
            if sparsity_set is None
            else check_kind(sparsity_set, SparsitySet, "sparsity_set", "Unstructured()")
        )
        self.budget = (
            Budget()
            if budget is None
            else check_kind(budget, Budget, "budget", "Budget(compression=10)")
        )
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
        self._seam: OptimizerSeam | None = None
        self._lookahead: ExtrapolatedWeights | None = None
        self._watch: StepWatch | None = None
        self._keeps_copies = False
        # may refuse the optimizer: before any hook is on it
        self._state: State = method.start(self._problem, self._pace())
        self.attach(optimizer)

    @classmethod
    def with_masks(
        cls, model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None = None
    ) -> "Pruner":
        """A pruner after hard pruning, from masks that were saved: it only holds zeros.

        Args:
            model: the network; weights outside the masks are set to zero.
            masks: boolean supports by parameter name.
            optimizer: the optimizer of masked retraining.

        Raises:
            InputError: names or shapes that are not the model's, or masks that keep nothing at all.
        """
        include = tuple(check_kind(masks, Mapping, "masks", "pruner.masks"))
        pruner = cls(model, None, OneShot(), budget=Budget(sparsity=0.0, include=include))
        pruner._place_masks(check_masks(masks, pruner._weights_by_name()))
        pruner.attach(optimizer)
        return pruner

    # ---------------------------------------------------------------- binding

    def attach(self, optimizer: Optimizer | None) -> None:
        """Bind to another optimizer, for example the one of masked retraining; None binds to none.

        Parameters that were replaced since (``load_state_dict(assign=True)``) are taken up, masked weights
        become zero again, and the pruner's tensors follow the model to its device.

        Raises:
            InputError: an optimizer that does not hold the weights, or that another pruner follows.
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

    def _bind(self) -> None:
        optimizer = self._optimizer
        self._keeps_copies = optimizer is not None and may_keep_copies(optimizer)
        if (masks := self.masks) is not None:  # the model may have moved since
            self._place_masks(list(masks.values()))
        if optimizer is None:
            return
        weights = self._problem.weights
        if self.method.looks_ahead and self._outside is None:  # may refuse: before other hooks
            self._lookahead = ExtrapolatedWeights(
                self.model,
                self.layers,
                lambda index, weight: self.method.lookahead(self._state, index, weight),
                type(self.method).__name__,
            )
        self._seam = OptimizerSeam(optimizer, weights, self._before_step, self._after_step)
        self._watch = StepWatch(weights, self._own_writes)

    def _unbound(self) -> None:
        self._seam, self._lookahead, self._watch = None, None, None
        self._keeps_copies = False

    def _check_bound(self) -> None:
        pruned = self._outside is not None
        check_bound(self.model, self.layers, self._optimizer, pruned=pruned)

    def _own_writes(self) -> Sequence[int]:
        if self._lookahead is None:
            return [0] * len(self.layers)
        return self._lookahead.writes

    def detach(self) -> None:
        """Take every hook off model and optimizer; the weights stay as they are."""
        if self._seam is not None:
            self._seam.remove()
        if self._lookahead is not None:
            self._lookahead.remove()
        self._unbound()
        self._optimizer = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle is bound to the copy of the optimizer; W is what it goes on from."""
        state = dict(vars(self))
        for hook in ("_seam", "_lookahead", "_watch"):
            state[hook] = None
        state["_swapped"] = {}
        if self._lookahead is not None:
            swapped = self._lookahead.swapped_weights()
            state["_swapped"] = {i: w.clone() for i, w in swapped.items()}
            self._lookahead.restore_all()
        return state

    @torch.no_grad()
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hook the copy to its own model and optimizer.

        Raises:
            InputError: a shallow copy, which would be the second pruner on one optimizer.
        """
        swapped = state.pop("_swapped")
        vars(self).update(state)
        for index, weight in swapped.items():  # the model may have been copied at Ŵ
            self._problem.weights[index].copy_(weight)
        if self._optimizer is not None:
            check_attachable(self.layers, self._optimizer, pruned=self._outside is not None)
            self._bind()

    def _before_step(self, skipped: bool = False) -> None:
        if self._outside is not None:
            return
        if self._lookahead is not None:
            self._lookahead.end_step()
        if not skipped:
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
        """Keep masks where the weights are, and bring the weights under them.

        What is kept is where the zeros are: inverting the masks at every step would cost memory and time.
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

    # ---------------------------------------------------------------- training

    def observe(self, loss: Tensor | float) -> None:
        """Note the task loss of a batch (without the penalty); no synchronisation with the device.

        Raises:
            InputError: a loss that is not one number.
        """
        if self._outside is None:
            self._losses.add(loss)

    def discard_losses(self) -> None:
        """Forget the losses seen since the last ``update``, for a pass that is run again."""
        self._losses.reset()

    @property
    def due(self) -> bool:
        """Whether a method with an inner loop of its own (SAS-ADMM) asks for ``update`` now."""
        return self._outside is None and self.method.is_due(self._state)

    def update(self, task_loss: float | None = None) -> OuterIteration:
        """End an outer iteration: Z, multipliers, step size, ρ. The same on all ranks.

        Args:
            task_loss: fₖ measured elsewhere (a probe set), in place of the mean of ``observe``.

        Returns:
            The entry that was appended to ``history``.

        Raises:
            InputError: called after ``hard_prune``, without a loss that the method needs, or where something
                else than the bound optimizer trains the weights.
            NonFiniteError: a loss or a weight is NaN or infinite; nothing was changed.
        """
        if self._outside is not None:
            raise InputError("update() was called after hard_prune(); there is nothing to update")
        if self._lookahead is not None:
            self._lookahead.forget()
        self._check_bound()
        device = self._problem.device
        loss = self._losses.over_ranks(device) if task_loss is None else as_number(task_loss)
        if loss is None and self.method.needs_loss:
            raise MissingLossError(
                f"{type(self.method).__name__} compares the task loss of outer iterations, and none "
                "was seen; call pruner.observe(loss) after every step, or update(task_loss=…)"
            )
        if loss is not None and not math.isfinite(loss):
            raise NonFiniteError(
                f"the task loss of outer iteration {self._state.k + 1} is {loss}; Z, multipliers and "
                "step size are unchanged. Lower the learning rate or rho, or clip gradients"
            )
        if self._watch is not None:
            self._watch.check(self._losses.count, ends=True)
        entry = self.method.end_outer_iteration(self._problem, self._state, loss, self._pace())
        self.discard_losses()
        self.history.append(entry)
        if self._watch is not None:
            self._watch.begin()
        return entry

    def _pace(self) -> Pace:
        rates, weights = self._rates, self._problem.weights
        if rates is None or rates.optimizer is not self._optimizer or rates.weights is not weights:
            self._rates = rates = OptimizerRates(self._optimizer, weights)
        return Pace(rates.now(), self.steps_per_update, self.updates)

    # ---------------------------------------------------------------- pruning

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """Boolean supports by name after ``hard_prune``, None before."""
        if self._outside is None:
            return None
        return {n: ~outside for n, outside in zip(self._problem.names, self._outside, strict=True)}

    def hard_prune(self) -> None:
        """W ← Π_S(W), in place; from now on masked weights stay exactly 0.0. Frees the method's tensors.

        Raises:
            InputError: the model, or the bound optimizer, has other parameters by now.
            NonFiniteError: a weight or a statistic is NaN or infinite; nothing was changed.
        """
        if self._outside is not None:
            return
        if self._lookahead is not None:
            self._lookahead.restore_all()
        self._check_bound()
        check_finite(self.model, "the network that is to be hard-pruned")
        points, masks = self._final()
        if bad := not_finite(list(zip(self._problem.names, points, strict=True))):
            raise NonFiniteError(f"the mean of {listed(bad)} that is to be pruned is not finite")
        if self._lookahead is not None:
            self._lookahead.remove()
            self._lookahead = None
        if (left := self.method.unfinished(self._state, self._pace())) is not None:
            LOGGER.warning(
                "%s is hard-pruned at %s: the rest is cut off at once. Constrained training was shorter than "
                "the Pruner was told (steps_per_update=, updates=)",
                type(self.method).__name__,
                left,
            )
        with torch.no_grad():
            for weight, point in zip(self._problem.weights, points, strict=True):
                weight.copy_(point)
        self._place_masks(masks)
        if self.method.replaces_optimizer and self._optimizer is not None:
            start_momentum(self._optimizer, self._problem.weights)
        self._state = State(k=self._state.k)

    def shrink(self) -> nn.Module:
        """A copy of the hard-pruned network without the channels that are zero; the same outputs.

        Plain modules with fewer channels, of the same classes: it trains, saves and exports like any other,
        and needs no masks.

        Raises:
            InputError: called before ``hard_prune``, or of a set that removes no channels.
            ZerosLostError: what is to be taken out is not zero any more.
            NonFiniteError: the network holds NaN or infinities.
        """
        kept = self._kept_indices("shrink()")
        if self._outside is not None:
            check_zeros(self.layers, self._outside, self._optimizer)
        check_finite(self.model, "the network that is to be shrunk")
        return removed(self.model, kept)

    def carry_over(self, optimizer: Optimizer, small: nn.Module) -> None:
        """Give an optimizer of the shrunk network the state that the bound optimizer has of the same weights.

        Args:
            optimizer: a new one over ``small.parameters()``, of the bound optimizer's class.
            small: what ``shrink`` has returned.

        Raises:
            InputError: no bound optimizer, or one of another class.
        """
        if self._optimizer is None:
            raise InputError("carry_over() needs the optimizer that has trained; attach() it first")
        kept = self._kept_indices("carry_over()")
        carry_over(self._optimizer, self.model, usable_optimizer(optimizer), small, kept)

    def _kept_indices(self, what: str) -> Kept:
        bound = self._problem.sparsity_set
        if not isinstance(bound, BoundChannels):
            raise InputError(
                f"{what} takes whole channels out, and {self.sparsity_set!r} leaves single zeros in all of them; prune "
                "with CoupledChannels(example_inputs)"
            )
        if (masks := self.masks) is None:
            raise InputError(f"{what} takes out what is zero; call hard_prune() first")
        return bound.kept_indices(bound.alive(list(masks.values())))

    def hard_pruned_copy(self) -> nn.Module:
        """A deep copy of the model as ``hard_prune`` would leave it now; training is not touched."""
        if self._lookahead is not None:
            self._lookahead.restore_all()
        self._check_bound()
        clone = copy.deepcopy(self.model)
        weights = dict(clone.named_parameters())
        points, supports = self._final()
        with torch.no_grad():
            for name, point, mask in zip(self._problem.names, points, supports, strict=True):
                weights[name].copy_(point)
                zero_outside(weights[name], mask)
        return clone

    def _final(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The points that hard pruning projects, and the supports of their projections."""
        if (masks := self.masks) is not None:
            return self._problem.weights, list(masks.values())
        points = self.method.final_points(self._problem, self._state)
        return points, self._problem.masks([point.detach() for point in points])

    def zero_masked(self, model: nn.Module) -> None:
        """Set the masked weights of a copy of the model to zero, after ``hard_prune``.

        Averages of the weights (``AveragedModel``, an EMA) that were begun before hard pruning stay dense
        otherwise; those begun after it are sparse.

        Args:
            model: the copy, or ``AveragedModel`` of it.

        Raises:
            InputError: called before ``hard_prune``, or a model without these weights.
        """
        if (masks := self.masks) is None:
            raise InputError("zero_masked() needs masks; call hard_prune() first")
        model = unwrap(model)
        if isinstance(model, AveragedModel):
            model = unwrap(model.module)
        weights = dict(model.named_parameters(remove_duplicate=False))
        missing = [n for n, m in masks.items() if n not in weights or weights[n].shape != m.shape]
        if missing:
            raise InputError(
                f"the model has no weights {listed(missing)} of the masks' shapes; pass a copy of the model that "
                "was pruned"
            )
        for name, mask in masks.items():
            zero_outside(weights[name], mask.to(weights[name].device))

    def summary(self) -> Summary:
        """Counts of the live weights, per layer and in total; ``print`` shows a table.

        Raises:
            InputError: the model, or the bound optimizer, has other parameters by now, or something else
                than the bound optimizer trains it.
            ZerosLostError: weights that were pruned are not zero any more.
        """
        self._check_bound()
        if self._outside is not None:
            check_zeros(self.layers, self._outside, self._optimizer)
        elif self._watch is not None:
            self._watch.check(self._losses.count, ends=False)
        return summarize(self.model, self.layers)

    # ---------------------------------------------------------------- saving

    def state_dict(self) -> dict[str, Any]:
        """Everything that evolves: method state, masks, losses seen, history. Tensors are not copied."""
        names = self._problem.names
        return {
            "method": _name_of(self.method),
            "layers": list(names),
            "masks": self.masks,
            "state": self._state.state_dict(names),
            "loss_sum": float(self._losses.total),
            "loss_count": self._losses.count,
            "history": [asdict(entry) for entry in self.history],
            "channels": self._channels_kept(),
        }

    def _channels_kept(self) -> list[int] | None:
        """Groups kept per tie of families: an allocation by norm depends on the weights at the start."""
        bound = self._problem.sparsity_set
        return [int(n) for n in bound.counts] if isinstance(bound, BoundChannels) else None

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a saved state; the model's weights are restored by their owner.

        Raises:
            InputError: a state of another method or of other layers, or one from before hard
                pruning for a pruner that has hard-pruned.
        """
        weights, pruned = self._weights_by_name(), self._outside is not None
        names = list(weights)
        state = check_saved_state(state, weights, _name_of(self.method), pruned)
        bound, counts = self._problem.sparsity_set, state.get("channels")
        if isinstance(bound, BoundChannels) and counts is not None:
            self._take_up(bound.with_counts(counts))
        masks = state["masks"]
        if masks is not None:
            self._place_masks([masks[name] for name in names])
            self._state = State(k=state["state"]["scalars"]["k"])
            if self._lookahead is not None:
                self._lookahead.remove()
                self._lookahead = None
        else:
            if self._lookahead is not None:
                self._lookahead.forget()
            self._state.load_state_dict(state["state"], names)
        self._losses.total, self._losses.count = state["loss_sum"], state["loss_count"]
        self.history = [OuterIteration(**entry) for entry in state["history"]]
        if self._watch is not None:
            self._watch.begin()
            self._watch.steps = self._losses.count  # a loss that was observed was stepped upon

    def _take_up(self, bound: BoundChannels) -> None:
        """Go on with the numbers of channels that a saved state has."""
        self.layers = [replace(x, sparsity=bound.sparsity(i)) for i, x in enumerate(self.layers)]
        sparsities = [layer.sparsity for layer in self.layers]
        self._problem = replace(self._problem, sparsity_set=bound, sparsities=sparsities)

    def _weights_by_name(self) -> dict[str, Tensor]:
        return dict(zip(self._problem.names, self._problem.weights, strict=True))


def _name_of(method: Method) -> str:
    by_type = {kind: name for name, kind in METHODS.items()}
    return by_type.get(type(method), type(method).__qualname__)
