"""The pruner: one object between a model, its optimizer and a pruning method."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.budgets import Budget
from detprune.errors import InputError, MissingLossError, NonFiniteError
from detprune.layers import select_layers, unwrap
from detprune.losses import MeanLoss
from detprune.methods import METHODS, Method, OneShot, OuterIteration, Pace, Problem, State
from detprune.projections import zero_outside
from detprune.seam import Lookahead, OptimizerSeam, start_momentum
from detprune.sets import SparsitySet, Unstructured
from detprune.summary import Summary, summarize

LOGGER = logging.getLogger(__name__)


class Pruner:
    """Prunes ``model`` under constraints while somebody else's loop trains it.

    Two phases. Constrained training: the method acts on every optimizer step, and ``update`` ends an
    outer iteration. After ``hard_prune``: masked weights are exactly 0.0 after every step.

    Args:
        model: the network, also inside DistributedDataParallel or ``torch.compile``.
        optimizer: the optimizer that trains it; None for a pruner that only prunes.
        method: ``SLR()``, ``ADMM()``, ``SASADMM()``, or a baseline: ``GradualMagnitude()``, ``DPF()``,
            ``Magnitude()``, ``OneShot()``.
        sparsity_set: what structure is kept; ``Unstructured()`` by default.
        budget: how much is kept, and which weights are pruned; may be left out for sets that fix
            their own sparsity (n:m).
        steps_per_update, updates: optimizer steps in an outer iteration and number of outer
            iterations, which ρ by pull is worked out from.

    Raises:
        InputError: weights that cannot be pruned as asked, all of them listed.
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
        self.method = method
        self.sparsity_set = sparsity_set if sparsity_set is not None else Unstructured()
        self.budget = budget if budget is not None else Budget()
        self.steps_per_update, self.updates = steps_per_update, updates
        self.layers = select_layers(self.model, self.sparsity_set, self.budget, optimizer)
        self.history: list[OuterIteration] = []
        self._problem = Problem(
            names=[layer.name for layer in self.layers],
            weights=[layer.weight for layer in self.layers],
            sparsity_set=self.sparsity_set,
            sparsities=[layer.sparsity for layer in self.layers],
            jointly=self.budget.scope == "global",
        )
        self._outside: list[Tensor] | None = None
        self._losses = MeanLoss()
        self._withheld: list[Tensor | None] = []
        self._optimizer = optimizer
        self._seam: OptimizerSeam | None = None
        self._lookahead: Lookahead | None = None
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
            InputError: names or shapes that are not the model's.
        """
        pruner = cls(model, None, OneShot(), budget=Budget(sparsity=0.0, include=tuple(masks)))
        names = pruner._problem.names
        wrong = [
            f"{name} has shape {tuple(mask.shape)}"
            for name, mask in masks.items()
            if name not in names or mask.shape != pruner._problem.weights[names.index(name)].shape
        ]
        if wrong:
            raise InputError(
                f"the masks are of another model: {'; '.join(wrong[:5])}; use the model they were "
                "saved with"
            )
        pruner._place_masks([masks[name] for name in names])
        pruner.attach(optimizer)
        return pruner

    # ---------------------------------------------------------------- binding

    def attach(self, optimizer: Optimizer | None) -> None:
        """Bind to another optimizer, for example the one of masked retraining; None binds to none."""
        self.detach()
        self._optimizer = optimizer
        if (masks := self.masks) is not None:  # the model may have moved since
            self._place_masks(list(masks.values()))
        if optimizer is None:
            return
        self._seam = OptimizerSeam(optimizer, self._before_step, self._after_step)
        if self.method.looks_ahead and self._outside is None:
            self._lookahead = Lookahead(
                self.model,
                [layer.module for layer in self.layers],
                self._problem.weights,
                lambda index, weight: self.method.lookahead(self._state, index, weight),
            )

    def detach(self) -> None:
        """Take every hook off model and optimizer; the weights stay as they are."""
        if self._seam is not None:
            self._seam.remove()
        if self._lookahead is not None:
            self._lookahead.remove()
        self._seam = self._lookahead = self._optimizer = None

    def _before_step(self, skipped: bool = False) -> None:
        if self._outside is not None:
            return
        if self._lookahead is not None:
            self._lookahead.restore_all()
        if not skipped:
            self.method.before_step(self._problem, self._state)
        if self.method.replaces_optimizer:
            self._withheld = [weight.grad for weight in self._problem.weights]
            for weight in self._problem.weights:
                weight.grad = None

    def _after_step(self) -> None:
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

    # ---------------------------------------------------------------- training

    def observe(self, loss: Tensor | float) -> None:
        """Note the task loss of a batch (without the penalty); no synchronisation with the device."""
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
            InputError: called after ``hard_prune``, or without a loss that the method needs.
            NonFiniteError: a loss or a weight is NaN or infinite; nothing was changed.
        """
        if self._outside is not None:
            raise InputError("update() was called after hard_prune(); there is nothing to update")
        if self._lookahead is not None:
            self._lookahead.restore_all()
        loss = task_loss if task_loss is not None else self._losses.over_ranks(self._problem.device)
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
        entry = self.method.end_outer_iteration(self._problem, self._state, loss, self._pace())
        self.discard_losses()
        self.history.append(entry)
        return entry

    def _pace(self) -> Pace:
        first = self._problem.weights[0]
        return Pace.of(self._optimizer, first, self.steps_per_update, self.updates)

    # ---------------------------------------------------------------- pruning

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """Boolean supports by name after ``hard_prune``, None before."""
        if self._outside is None:
            return None
        return {n: ~outside for n, outside in zip(self._problem.names, self._outside, strict=True)}

    def hard_prune(self) -> None:
        """W ← Π_S(W), in place; from now on masked weights stay exactly 0.0. Frees the method's tensors."""
        if self._outside is not None:
            return
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
        points, masks = self._final()
        with torch.no_grad():
            for weight, point in zip(self._problem.weights, points, strict=True):
                weight.copy_(point)
        self._place_masks(masks)
        if self.method.replaces_optimizer and self._optimizer is not None:
            start_momentum(self._optimizer, self._problem.weights)
        self._state = State(k=self._state.k)

    def hard_pruned_copy(self) -> nn.Module:
        """A deep copy of the model as ``hard_prune`` would leave it now; training is not touched."""
        if self._lookahead is not None:
            self._lookahead.restore_all()
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

    def summary(self) -> Summary:
        """Counts of the live weights, per layer and in total; ``print`` shows a table."""
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
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a saved state; the model's weights are restored by their owner.

        Raises:
            InputError: a state of another method or of other layers, or one from before hard
                pruning for a pruner that has hard-pruned.
        """
        names = self._problem.names
        if list(state["layers"]) != list(names):
            missing = sorted(set(names) - set(state["layers"]))
            extra = sorted(set(state["layers"]) - set(names))
            raise InputError(
                f"the saved pruner state is for other layers: missing {missing}, extra {extra}; "
                "use the model, include and exclude that it was saved with"
            )
        masks = state["masks"]
        if masks is None and self._outside is not None:
            raise InputError(
                "the saved pruner state is from before hard pruning, and this pruner has hard-pruned "
                "already; load it into a new Pruner"
            )
        if masks is None and state["method"] != _name_of(self.method):
            raise InputError(
                f"the saved pruner state is of method {state['method']!r}, this pruner runs "
                f"{_name_of(self.method)!r}; use the method it was saved with"
            )
        if masks is not None:
            self._place_masks([masks[name] for name in names])
            self._state = State(k=state["state"]["scalars"]["k"])
            if self._lookahead is not None:
                self._lookahead.remove()
                self._lookahead = None
        else:
            self._state.load_state_dict(state["state"], names)
        self._losses.total, self._losses.count = state["loss_sum"], state["loss_count"]
        self.history = [OuterIteration(**entry) for entry in state["history"]]


def _name_of(method: Method) -> str:
    by_type = {kind: name for name, kind in METHODS.items()}
    return by_type.get(type(method), type(method).__qualname__)
