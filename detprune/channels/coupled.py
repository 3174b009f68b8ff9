"""The sparsity set of whole channels, coupled over all layers that they run through; they can be removed afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from detprune.budgets import Budget, matches, matching
from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.choice import channels_that_stay
from detprune.channels.costs import Costs, Numbers
from detprune.channels.groups import ChannelGroups, channel_groups, freeze_ties
from detprune.channels.labels import Row
from detprune.channels.plan import ChannelPlan
from detprune.channels.trace import Trace
from detprune.channels.tracing import Forward, trace
from detprune.channels.verification import Trial
from detprune.errors import InputError, listed
from detprune.networks.wrappers import check_initialized, unwrap
from detprune.sets import SparsitySet
from detprune.values import check_whole


def call(model: nn.Module, *inputs: object) -> object:
    """Return ``model(*inputs)``: the default of ``forward``."""
    return model(*inputs)


@dataclass(frozen=True)
class CoupledChannels(SparsitySet):
    """Whole channels of a network, coupled across layers by additions, gates and cuts.

    A group is all weights that write one channel: filters of convolutions, rows of linear layers, their biases,
    and γ and β of the norms on the way. Groups of equal cost form a family, and S allows each family a count of nonzero
    groups. The projection keeps in each family the groups of largest l2 norm, ties to the lowest number. A network
    with zero groups can be shrunk (``Pruner.shrink``) and has the same outputs. One run of the network on the example
    inputs shows how its channels are coupled.

    Attributes:
        example_inputs: arguments of a call of the network: a tensor, or a tuple. Give them the size of later use,
            because MACs are counted on them.
        round_to: widths are rounded to multiples of it, because runtimes are faster on them.
        forward: ``forward(model, *example_inputs)`` runs the network in evaluation mode and returns the outputs
            that must not change; by default the network is called, and these are all outputs.
    """

    example_inputs: Tensor | Sequence[object] | None = field(
        default=None, repr=False, compare=False
    )
    round_to: int = 8
    forward: Forward = field(default=call, repr=False, compare=False)

    __pydantic_config__: ClassVar = {
        "arbitrary_types_allowed": True
    }  # recipes are read with pydantic

    def __post_init__(self) -> None:
        check_whole("coupled channels: round_to", self.round_to, "a whole number, 1 or more")

    def inputs_for(self, model: nn.Module) -> tuple[object, ...]:
        """The example inputs as arguments, on the device and in the precision of the network."""
        given = self.example_inputs
        if given is None:
            raise InputError(
                "CoupledChannels() has no example inputs; pass the arguments of a call of the network, for example "
                "CoupledChannels(torch.zeros(1, 3, 224, 224))"
            )
        if isinstance(given, Tensor | Mapping):
            arguments: tuple[object, ...] = (given,)
        elif isinstance(given, list | tuple):
            arguments = tuple(given)
        else:
            raise InputError(
                f"the example inputs are of type {type(given).__name__}; pass a tensor, or a tuple of the arguments "
                "that the network is called with"
            )
        weight = next((p for p in model.parameters() if p.is_floating_point()), None)
        if weight is None or weight.is_meta:
            return arguments

        def fitting(value: object) -> object:
            if not isinstance(value, Tensor):
                return value
            plain = value.is_floating_point() and value.layout == torch.strided
            if value.is_meta or (plain and not torch.isfinite(value).all()):
                what = "no values (device meta)" if value.is_meta else "NaN or infinities"
                raise InputError(
                    f"the example inputs hold {what}, on which no outputs can be compared; pass inputs of a normal "
                    "call, or torch.zeros of their shape"
                )
            return value.to(weight.device, weight.dtype if value.is_floating_point() else None)

        return tuple(tree_map(fitting, value) for value in arguments)

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Refuse single tensors, because the network decides which weights make a channel.

        Raises:
            InputError: always.
        """
        raise InputError(
            "CoupledChannels() does not prune single weights: channels run through a whole network. Pass it to "
            "Pruner, or use bind(model, budget)"
        )

    def for_network(
        self, model: nn.Module, budget: Budget, optimizer: Optimizer | None
    ) -> BoundChannels:
        """``bind`` for the optimizer: channels that it does not train stay."""
        return self._bound(model, budget, optimizer)[0]

    def plan(self, model: nn.Module, budget: Budget | None = None) -> ChannelPlan:
        """The plan of a network, to print: channels that can be removed, how many a budget keeps, why others stay.

        Raises:
            InputError: as ``bind``.
        """
        bound, record, costs = self._bound(model, budget or Budget(sparsity=0.0))
        return ChannelPlan.of(bound, record, costs)

    def bind(self, model: nn.Module, budget: Budget) -> BoundChannels:
        """The set for one network and one budget.

        Args:
            model: the network; it is run, and not changed.
            budget: ``macs`` or ``parameters`` (shares of the dense network's that are left), ``sparsity`` (share
                of the channels that go), or an allocation by name.

        Raises:
            InputError: example inputs that do not run, nothing that can be removed, a budget out of reach,
                patterns that name a part of a coupled family.
        """
        return self._bound(model, budget)[0]

    def _bound(
        self, model: nn.Module, budget: Budget, optimizer: Optimizer | None = None
    ) -> tuple[BoundChannels, Trace, Costs]:
        _check_budget(budget)
        model = unwrap(model)
        _check_values(model)
        record, groups = self._groups(model, budget, optimizer)
        costs = Costs(record, groups)
        step = allocation.steps(groups, self.round_to)
        counts = self._counts(model, budget, groups, costs, step)
        return BoundChannels(groups, counts), record, costs

    def _groups(
        self, model: nn.Module, budget: Budget, optimizer: Optimizer | None
    ) -> tuple[Trace, ChannelGroups]:
        inputs = self.inputs_for(model)
        failure = None
        record = trace(model, inputs, self.forward)
        keeps = channels_that_stay(model, record, budget, optimizer)
        trial = Trial(model, inputs, self.forward)
        while (groups := channel_groups(record, keeps)).count:
            failure = trial.failure(groups)
            if failure is None:
                self._check_widths(groups)
                return record, groups
            ties = trial.failing_ties(groups, failure)
            freeze_ties(record, groups, ties, "has a size that something else depends on")
        reasons = sorted({reason for own in groups.reasons.values() for reason in own})
        if failure is not None:
            reasons.append(f"with fewer channels {failure.text}")
        why = (
            "; ".join(reasons)
            or "no convolution or linear layer took part when it ran on the example inputs"
        )
        raise InputError(
            f"no channel of this network can be removed without a change of its outputs; what keeps them: "
            f"{why}. Prune single weights instead (Unstructured())"
        )

    def _check_widths(self, groups: ChannelGroups) -> None:
        widest = max(len(family.groups) for family in groups.families)
        if self.round_to >= widest:
            raise InputError(
                f"coupled channels: round_to is {self.round_to}, but the widest layer that can shrink has {widest} "
                "channels; use a smaller number"
            )

    def _counts(
        self, model: nn.Module, budget: Budget, groups: ChannelGroups, costs: Costs, step: Row
    ) -> Row:
        sizes = costs.sizes
        if isinstance(budget.allocation, Mapping):
            return _by_name(budget, groups, sizes, step)
        if budget.macs is None and budget.parameters is None:
            return allocation.at_share(sizes, step, 1 - (budget.sparsity or 0.0))
        if budget.macs is not None:
            what, share, cost = "macs", float(budget.macs), costs.macs
        else:
            what, share, cost = "parameters", float(budget.parameters or 0.0), costs.parameters
        allocation.refuse_unreachable(costs, step, cost, share, what)
        target = share * float(cost(sizes))
        if budget.allocation == "global":
            losses = _losses(model, groups)
            counts = allocation.by_loss(losses, sizes, step, cost, target)
        else:
            counts = allocation.uniform(sizes, step, cost, target)
        return allocation.fill_up(counts, sizes, step, cost, target)


def _check_budget(budget: Budget) -> None:
    if not isinstance(budget, Budget):
        raise InputError(
            f"the budget is of type {type(budget).__name__}; make one, for example Budget(macs=0.5)"
        )
    if budget.compression is not None:
        raise InputError(
            f"compression is {budget.compression}, which counts single weights; for channels give the share that is "
            "left, macs=0.5 or parameters=0.4, or the share of channels that is removed, sparsity=0.5"
        )
    if budget.scope == "global":
        raise InputError(
            "scope='global' ranks single groups over all layers; for channels use allocation='global'"
        )
    if budget.allocation == "erk":
        raise InputError(
            "allocation is 'erk', which is for single weights; for channels: uniform, global, or a mapping"
        )
    shares = (budget.macs, budget.parameters)
    if isinstance(budget.allocation, Mapping) and shares != (None, None):
        raise InputError(
            "the allocation by name says how many channels of every layer go, and macs= or parameters= what is left "
            "of the network; give one of them"
        )
    if budget.allocation == "global" and shares == (None, None):
        raise InputError(
            "allocation='global' weighs channels against their cost; give macs=0.5 or parameters=0.4 with it"
        )
    targets = (budget.sparsity, budget.macs, budget.parameters)
    if targets == (None, None, None) and not isinstance(budget.allocation, Mapping):
        raise InputError("the budget has no target; give macs=0.5, parameters=0.4 or sparsity=0.5")


def _check_values(model: nn.Module) -> None:
    """Refuse weights on the meta device, because the network has to run."""
    check_initialized(model)
    if meta := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise InputError(
            f"{listed(meta)} are on the meta device and have no values; load the weights first"
        )


def _by_name(budget: Budget, groups: ChannelGroups, sizes: Row, step: Row) -> Row:
    """Sparsity of the first pattern that names a weight of the family."""
    if not isinstance(budget.allocation, Mapping):
        raise TypeError("the allocation is no mapping")
    weights: list[list[str]] = [[] for _ in sizes]
    for member in groups.members:
        for number in groups.families_of(member.groups):
            weights[groups.families[number].tie].append(member.name)
    everything = [name for own in weights for name in own]
    for pattern in budget.allocation:
        matching(pattern, everything, "allocation")
    counts = sizes.copy()
    for tie, own in enumerate(weights):
        found = [s for p, s in budget.allocation.items() if any(matches(n, p) for n in own)]
        sparsity = found[0] if found else (budget.sparsity or 0.0)
        counts[tie] = allocation.at_share(sizes[tie : tie + 1], step[tie : tie + 1], 1 - sparsity)[
            0
        ]
    return counts


def _losses(model: nn.Module, groups: ChannelGroups) -> list[Numbers]:
    """For each tie and each number n of kept groups, the share of the squared norm lost, as mean over its families."""
    weights = dict(model.named_parameters())
    bound = BoundChannels(groups, np.ones(len(groups.ties), dtype=np.int64))
    norms = bound.squared_norms([weights[name].detach() for name in bound.names]).cpu().numpy()
    losses = []
    for tie in groups.ties:
        shares = []
        for number in tie:
            own = np.sort(norms[groups.families[number].groups])[::-1]
            total = own.sum() or 1.0
            shares.append(1 - np.concatenate([[0.0], np.cumsum(own)]) / total)
        losses.append(np.mean(shares, axis=0))
    return losses
