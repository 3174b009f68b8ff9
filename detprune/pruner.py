"""The pruner: one object between a model, its optimizer and a pruning method."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.binding.attached import AttachedMethod
from detprune.binding.checks import (
    check_kind,
    check_zeros,
    tell_cut_short,
)
from detprune.binding.inference import outside_inference_mode
from detprune.binding.losses import as_number
from detprune.binding.saved import check_masks, check_saved_state, maskable, masked_weights
from detprune.budgets import Budget
from detprune.channels import BoundChannels
from detprune.channels.bound import kept_indices
from detprune.channels.removal import carry_over, removed
from detprune.errors import InputError, MissingLossError, NonFiniteError, listed
from detprune.loggers import logger
from detprune.methods import OneShot, OuterIteration, State, name_of
from detprune.networks.finite import check_finite, not_finite
from detprune.networks.optimizers import (
    start_momentum,
    usable_optimizer,
)
from detprune.projections import zero_outside
from detprune.summary import Summary, summarize

LOGGER = logger(__name__)


class Pruner(AttachedMethod):
    """Prunes ``model`` under constraints, while a training loop of yours trains it.

    There are two phases. In constrained training the method acts on every optimizer step, and ``update``
    ends an outer iteration. After ``hard_prune`` masked weights are exactly 0.0 after every step.

    Args:
        model: the network; it may be wrapped by DistributedDataParallel, ``torch.compile`` or Lightning Fabric.
        optimizer: the optimizer that trains the model; it may be wrapped by accelerate or Fabric. None for a
            pruner that only hard-prunes.
        method: ``SLR()``, ``ADMM()``, ``SASADMM()``, or a baseline: ``GradualMagnitude()``, ``DPF()``,
            ``Magnitude()``, ``OneShot()``.
        sparsity_set: the structure of the zeros; ``Unstructured()`` by default.
        budget: how much is kept, and which weights are pruned; may be left out for sets that fix
            their own sparsity (n:m).
        steps_per_update, updates: optimizer steps in an outer iteration, and number of outer
            iterations; ρ by pull and ramps need them.

    Raises:
        InputError: weights cannot be pruned as asked (all of them are listed), the optimizer does not hold
            them, or another pruner is bound to it already.
    """

    @classmethod
    @outside_inference_mode
    def with_masks(
        cls, model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer | None = None
    ) -> "Pruner":
        """Make a pruner from saved masks, as after hard pruning: it only holds zeros.

        Args:
            model: the network; weights outside the masks are set to zero.
            masks: boolean supports by parameter name.
            optimizer: the optimizer of masked retraining.

        Raises:
            InputError: names or shapes that are not the model's, or masks that keep nothing at all.
        """
        include = maskable(check_kind(masks, Mapping, "masks", "pruner.masks"), model)
        pruner = cls(model, None, OneShot(), budget=Budget(sparsity=0.0, include=include))
        pruner._place_masks(check_masks(masks, pruner._weights_by_name()))
        pruner.attach(optimizer)
        return pruner

    def observe(self, loss: Tensor | float) -> None:
        """Add the task loss of a batch, without the penalty; it does not wait for the device.

        Raises:
            InputError: a loss that is not one number.
        """
        if self._outside is None:
            self._losses.add(loss)

    def discard_losses(self) -> None:
        """Forget the losses since the last ``update``; for an epoch that is run again."""
        self._losses.reset()

    @property
    def due(self) -> bool:
        """Whether ``update`` is to be called now; for methods with an inner loop of their own (SAS-ADMM)."""
        return self._outside is None and self.method.is_due(self._state)

    @outside_inference_mode
    def update(self, task_loss: float | None = None) -> OuterIteration:
        """End an outer iteration: update Z, multipliers, step size and ρ, equally on all ranks.

        Args:
            task_loss: fₖ measured elsewhere (a probe set), in place of the mean of ``observe``; in every
                outer iteration or in none, because SLR compares it with that of the one before.

        Returns:
            The entry that was appended to ``history``.

        Raises:
            InputError: called after ``hard_prune``, without a loss that the method needs, or where something
                else than the bound optimizer trains the weights.
            NonFiniteError: a loss or a weight is NaN or infinite; nothing was changed.
        """
        if self._outside is not None:
            raise InputError("update() was called after hard_prune(); there is nothing to update")
        if self._extrapolated is not None:
            self._extrapolated.forget()
        self._check_bound()
        measured = None if task_loss is None else as_number(task_loss)
        loss = self._losses.over_ranks(measured, self._problem.device)
        if loss is None and self.method.needs_loss:
            raise MissingLossError(
                f"{type(self.method).__name__} compares the task loss of outer iterations, but none "
                "was seen; call pruner.observe(loss) after every step, or update(task_loss=…)"
            )
        if loss is not None and not math.isfinite(loss):
            raise NonFiniteError(
                f"the task loss of outer iteration {self._state.k + 1} is {loss}; Z, multipliers and "
                "step size are unchanged. Lower the learning rate or rho, or clip gradients"
            )
        if self.method.needs_loss:
            self._losses.tell_other_kind(name_of(self.method), measured=measured is not None)
        if self._watch is not None:
            self._watch.check(self._losses.count, ends=True)
        entry = self.method.end_outer_iteration(self._problem, self._state, loss, self._pace())
        self.discard_losses()
        self.history.append(entry)
        if self._watch is not None:
            self._watch.begin()
        return entry

    # ---------------------------------------------------------------- pruning

    @outside_inference_mode
    def hard_prune(self) -> None:
        """W ← Π_S(W), in place; masked weights stay exactly 0.0 from now on. Frees the method's tensors.

        Raises:
            InputError: the model, or the bound optimizer, has other parameters by now.
            NonFiniteError: a weight or a statistic is NaN or infinite; nothing was changed.
        """
        if self._outside is not None:
            return
        if self._extrapolated is not None:
            self._extrapolated.restore_all()
        self._check_bound()
        check_finite(self.model, "the network to be hard-pruned")
        points, masks = self._final()
        if bad := not_finite(list(zip(self._problem.names, points, strict=True))):
            raise NonFiniteError(f"the mean of {listed(bad)}, which would be pruned, is not finite")
        if self._extrapolated is not None:
            self._extrapolated.remove()
            self._extrapolated = None
        left = self.method.unfinished(self._state, self._pace())
        tell_cut_short(self.method, left, self._state.k, self._watch)
        if self._watch is not None:
            self._watch.begin()
        with torch.no_grad():
            for weight, point in zip(self._problem.weights, points, strict=True):
                weight.copy_(point)
        self._place_masks(masks)
        if self.method.replaces_optimizer and self._optimizer is not None:
            start_momentum(self._optimizer, self._problem.weights)
        self._state = State(k=self._state.k)

    @outside_inference_mode
    def shrink(self) -> nn.Module:
        """Return a copy of the hard-pruned network without the channels that are zero, with the same outputs.

        Plain modules with fewer channels, of the same classes: it trains, saves and exports like any other,
        and needs no masks.

        Raises:
            InputError: it was called before ``hard_prune``, or the set removes no channels.
            ZerosLostError: the channels to be removed are not zero any more.
            NonFiniteError: the network holds NaN or infinities.
        """
        kept = kept_indices(self._problem.sparsity_set, self.masks, "shrink()")
        if self._outside is not None:
            check_zeros(self.layers, self._outside, self._optimizer)
        check_finite(self.model, "the network to be shrunk")
        return removed(self.model, kept)

    @outside_inference_mode
    def carry_over(self, optimizer: Optimizer, small: nn.Module) -> None:
        """Copy the bound optimizer's state of the remaining weights to an optimizer of the shrunk network.

        Args:
            optimizer: a new one over ``small.parameters()``, of the bound optimizer's class.
            small: the network that ``shrink`` returned.

        Raises:
            InputError: no bound optimizer, or one of another class.
        """
        if self._optimizer is None:
            raise InputError(
                "carry_over() needs the optimizer that trained the network; attach() it first"
            )
        kept = kept_indices(self._problem.sparsity_set, self.masks, "carry_over()")
        carry_over(self._optimizer, self.model, usable_optimizer(optimizer), small, kept)

    @outside_inference_mode
    def hard_pruned_copy(self) -> nn.Module:
        """A deep copy of the model as ``hard_prune`` would leave it now; the model itself does not change."""
        if self._extrapolated is not None:
            self._extrapolated.restore_all()
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

    @outside_inference_mode
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
        weights = masked_weights(model, masks)
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
        if self._watch is not None:
            self._watch.look(self._losses.count, pruned=self._outside is not None)
        return summarize(self.model, self.layers)

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state: method state, masks, losses, history. Tensors are not copied."""
        names = self._problem.names
        return {
            "method": name_of(self.method),
            "set": type(self.sparsity_set).__name__,
            "layers": list(names),
            "masks": self.masks,
            "state": self._state.state_dict(names),
            "loss_sum": float(self._losses.total),
            "loss_count": self._losses.count,
            "history": [asdict(entry) for entry in self.history],
            "channels": self._channels_kept(),
        }

    @outside_inference_mode
    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a saved state; restore the model's weights yourself.

        Raises:
            InputError: a state of another method, of another set or of other layers, or one from before hard
                pruning for a pruner that has hard-pruned.
        """
        weights, pruned = self._weights_by_name(), self._outside is not None
        names = list(weights)
        state = check_saved_state(
            state, weights, name_of(self.method), type(self.sparsity_set).__name__, pruned
        )
        bound, counts = self._problem.sparsity_set, state.get("channels")
        if isinstance(bound, BoundChannels) and counts is not None:
            self._take_up(bound.with_counts(counts))
        masks = state["masks"]
        if masks is not None:
            self._place_masks([masks[name] for name in names])
            self._state = State(k=state["state"]["scalars"]["k"])
            if self._extrapolated is not None:
                self._extrapolated.remove()
                self._extrapolated = None
        else:
            if self._extrapolated is not None:
                self._extrapolated.forget()
            self._state.load_state_dict(state["state"], names)
        self._losses.total, self._losses.count = state["loss_sum"], state["loss_count"]
        self.history = [OuterIteration(**entry) for entry in state["history"]]
        if self._watch is not None:
            self._watch.begin()
            self._watch.steps = self._losses.count  # each observed loss had its step
