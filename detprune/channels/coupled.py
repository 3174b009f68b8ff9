"""The sparsity set of whole channels, coupled over all layers that they run through; they can be removed afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from detprune.budgets import Budget
from detprune.channels import allocation
from detprune.channels.bound import BoundChannels
from detprune.channels.budget_checks import check_budget, latency_table
from detprune.channels.choice import channels_that_stay, tell_passed_over
from detprune.channels.costs import Costs
from detprune.channels.groups import ChannelGroups, channel_groups, freeze_ties
from detprune.channels.latency import Latency
from detprune.channels.latency_table import LatencyTable
from detprune.channels.plan import ChannelPlan
from detprune.channels.trace import Trace
from detprune.channels.tracing import Forward, trace
from detprune.channels.verification import Trial
from detprune.channels.widths import kept_groups
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
        if not callable(self.forward):
            raise InputError(
                f"coupled channels: forward is {self.forward!r:.60}; allowed is a function of network and inputs"
            )

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
            budget: ``macs``, ``parameters`` or ``latency`` (shares of the dense network's that are left),
                ``sparsity`` (share of the channels that go), or an allocation by name.

        Raises:
            InputError: example inputs that do not run, nothing that can be removed, a budget out of reach,
                patterns that name a part of a coupled family.
        """
        return self._bound(model, budget)[0]

    def _bound(
        self, model: nn.Module, budget: Budget, optimizer: Optimizer | None = None
    ) -> tuple[BoundChannels, Trace, Costs]:
        check_budget(budget)
        model = unwrap(model)
        _check_values(model)
        table = latency_table(budget)
        chosen = self if table is None else self._on(model, table)
        record, groups = chosen._groups(model, budget, optimizer)
        costs = Costs(record, groups)
        step = allocation.steps(groups, self.round_to)
        latency = None if table is None else Latency(table, costs, groups)
        counts = kept_groups(model, budget, groups, costs, step, latency)
        return BoundChannels(groups, counts), record, costs

    def traced(self, model: nn.Module, budget: Budget) -> Costs:
        """The costs of a network, for a measurement of its layers; what the budget asks for is ignored."""
        model = unwrap(model)
        _check_values(model)
        return Costs(*self._groups(model, budget, None))

    def latency_of(self, model: nn.Module, budget: Budget) -> tuple[BoundChannels, float, float]:
        """The set of a latency budget with a table, and two shares of the dense network's time by the table.

        Returns:
            The set, the share that its network takes, and the least that can be reached.
        """
        bound, _, costs = self._bound(model, budget)
        table = latency_table(budget)
        if table is None:
            raise TypeError("the budget has no latency")
        latency = Latency(table, costs, bound.groups)
        fewest = allocation.least(costs.sizes, allocation.steps(bound.groups, self.round_to))
        return bound, float(latency.predicted(bound.counts)), float(latency.predicted(fewest))

    def _on(self, model: nn.Module, table: LatencyTable) -> "CoupledChannels":
        """The set with example inputs of the shapes of a table."""
        inputs = self.inputs_for(model)
        own = [value for value in inputs if isinstance(value, Tensor)]
        fits = len(own) == len(table.inputs) and all(
            len(shape) == value.dim() and (len(shape) < 2 or shape[1] == value.shape[1])
            for shape, value in zip(table.inputs, own, strict=True)
        )
        if not fits:
            raise InputError(
                f"the table of latencies is of a network with inputs of shape {listed(map(str, table.inputs))}, but "
                f"this one takes {listed(str(tuple(value.shape)) for value in own)}; write a table for this network "
                "with detprune profile"
            )
        shapes = iter(table.inputs)
        sized = [
            _of_shape(value, next(shapes)) if isinstance(value, Tensor) else value
            for value in inputs
        ]
        return replace(self, example_inputs=tuple(sized))

    def _groups(
        self, model: nn.Module, budget: Budget, optimizer: Optimizer | None
    ) -> tuple[Trace, ChannelGroups]:
        inputs = self.inputs_for(model)
        failure = None
        tell_passed_over(model, budget)
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


def _of_shape(value: Tensor, shape: Sequence[int]) -> Tensor:
    """An input of another shape, with the values of the given one repeated."""
    if tuple(value.shape) == tuple(shape):
        return value
    times = [-(-wanted // size) for wanted, size in zip(shape, value.shape, strict=True)]
    return value.repeat(times)[tuple(slice(size) for size in shape)].contiguous()


def _check_values(model: nn.Module) -> None:
    """Refuse weights on the meta device, because the network has to run."""
    check_initialized(model)
    if meta := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise InputError(
            f"{listed(meta)} are on the meta device and have no values; load the weights first"
        )
