"""Checks that a pruner follows the actual training: it has the model's parameters, the bound optimizer moves them,
and masked weights are zero.

The checks run at the end of an outer iteration; ``StepWatch`` looks at the steps before it.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.binding.extrapolation import refuse_if_extrapolated
from detprune.binding.hooks import refuse_second_pruner
from detprune.binding.watch import StepWatch
from detprune.budgets import Budget
from detprune.errors import InputError, ZerosLostError, listed
from detprune.layers import Layer
from detprune.loggers import logger
from detprune.methods import Method
from detprune.networks.optimizers import held_by
from detprune.sets import SparsitySet, Unstructured
from detprune.values import check_whole

LOGGER = logger(__name__)

T = TypeVar("T")


def check_parameters(model: nn.Module, layers: Sequence[Layer]) -> None:
    """Refuse a model whose pruned parameters were replaced, by others that the pruner can be bound to or cannot."""
    present = dict(model.named_parameters(remove_duplicate=False))
    replaced = [layer.name for layer in layers if present.get(layer.name) is not layer.weight]
    if replaced:
        present_layers(model, layers)
        raise InputError(
            f"the model's parameters are no longer those that the pruner was made with: {listed(replaced)} were "
            "replaced, by load_state_dict(assign=True), a conversion or a new layer; make a new optimizer and call "
            "attach(optimizer), which binds the pruner to the new parameters"
        )


def check_bound(
    model: nn.Module, layers: Sequence[Layer], optimizer: Optimizer | None, pruned: bool
) -> None:
    """Check that the pruned parameters are still the model's, and that the bound optimizer still holds them.

    Args:
        model: the network.
        layers: the pruned weights.
        optimizer: the bound one, None for none.
        pruned: whether the weights are hard-pruned: then those that are frozen need no optimizer.
    """
    check_parameters(model, layers)
    if optimizer is not None and (lost := _not_held(layers, optimizer, pruned)):
        raise InputError(
            f"the bound optimizer does not hold {listed(lost)} any more: its param_groups were changed after the "
            "pruner was bound, so that its steps move other tensors, or none, in their place. Put the model's "
            "parameters back, or make a new optimizer from model.parameters() and call attach(optimizer); call "
            "detach() where training is over"
        )


def _not_held(layers: Sequence[Layer], optimizer: Optimizer, pruned: bool) -> list[str]:
    """Names of the weights that the optimizer should hold, but does not."""
    held = held_by(optimizer)
    return [
        layer.name
        for layer in layers
        if id(layer.weight) not in held and (layer.weight.requires_grad or not pruned)
    ]


def present_layers(model: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """The same layers with the parameters that the model has now.

    Raises:
        InputError: names or shapes that are not the model's any more.
    """
    owners = dict(model.named_modules(remove_duplicate=False))
    found, wrong = [], []
    for layer in layers:
        prefix, _, local = layer.name.rpartition(".")
        module = owners.get(prefix)
        weight = None if module is None else module._parameters.get(local)
        if module is None or weight is None or weight.shape != layer.weight.shape:
            wrong.append(layer.name)
        else:
            found.append(Layer(layer.name, weight, module, layer.sparsity))
    if wrong:
        raise InputError(
            f"the model has no parameters {listed(wrong)} of the pruned shapes any more: it was changed after "
            "the pruner was made; make a new Pruner"
        )
    return found


def check_attachable(layers: Sequence[Layer], optimizer: Optimizer, pruned: bool) -> None:
    """Refuse an optimizer that does not hold the weights, or that another pruner is bound to.

    Args:
        layers: the pruned weights.
        optimizer: the optimizer.
        pruned: whether the weights are hard-pruned: then those that are frozen need no optimizer.
    """
    if lacking := _not_held(layers, optimizer, pruned):
        raise InputError(
            f"{listed(lacking)}: not held by the optimizer, so that its steps do not move these weights; make it "
            "from model.parameters() of the model that is pruned, and train with it"
        )
    weights = [layer.weight for layer in layers]
    refuse_second_pruner(optimizer, weights)
    refuse_if_extrapolated(weights)


def check_zeros(
    layers: Sequence[Layer], outside: Sequence[Tensor], optimizer: Optimizer | None
) -> None:
    """Raise an error if masked weights are not zero.

    Args:
        layers: the pruned weights.
        outside: True where a weight is masked.
        optimizer: the bound one.
    """
    lost = {}
    for layer, masked in zip(layers, outside, strict=True):
        weight = layer.weight.detach()
        if count := int(weight[masked.to(weight.device)].count_nonzero()):
            lost[layer.name] = count
    if lost:
        bound = (
            f"the bound optimizer ({type(optimizer).__name__})" if optimizer else "any optimizer"
        )
        raise ZerosLostError(
            f"{sum(lost.values())} weights that were pruned are not zero in {listed(list(lost))}: they were moved "
            f"outside the steps of {bound}. Call attach(optimizer) with the optimizer that trains, which also "
            "puts the zeros back; an optimizer that writes a second copy of the weights back, or a dense average "
            "of them that was loaded, loses them too"
        )


def check_length(name: str, value: object) -> int | None:
    """Return a number of steps or updates, 1 or more, or None; other values are refused."""
    return None if value is None else check_whole(name, value, "a whole number, 1 or more, or None")


def check_kind(value: T, kind: type[Any], name: str, example: str) -> T:
    """Return an argument if it has the given type; a class instead of an object is a frequent slip."""
    if isinstance(value, kind):
        return value
    if isinstance(value, type):
        raise InputError(f"{name} is the class {value.__name__}; make one, for example {example}")
    raise InputError(
        f"{name} is {value!r:.60}, a {type(value).__name__}; write for example {name}={example}"
    )


def check_choice(
    method: Method, sparsity_set: SparsitySet | None, budget: Budget | None
) -> tuple[Method, SparsitySet, Budget]:
    """A method, a set and a budget, with the defaults of what is left out (None).

    Raises:
        InputError: a value of another type.
    """
    some = Unstructured() if sparsity_set is None else sparsity_set
    much = Budget() if budget is None else budget
    kinds = {"method": Method, "sparsity_set": SparsitySet, "budget": Budget}
    for name, value in zip(kinds, (method, some, much), strict=True):
        for own, kind in kinds.items():
            if isinstance(value, kind) and own != name:
                raise InputError(
                    f"{name} is {value!r:.60}, a {type(value).__name__}, which stands in another argument's place; "
                    f"write {own}={type(value).__name__}(...)"
                )
    return (
        check_kind(method, Method, "method", "SLR()"),
        check_kind(some, SparsitySet, "sparsity_set", "Unstructured()"),
        check_kind(much, Budget, "budget", "Budget(compression=10)"),
    )


def tell_cut_short(method: Method, left: str | None, k: int, watch: StepWatch | None) -> None:
    """Warn if a network is hard-pruned before its method has done what it was to do.

    Args:
        method: of the pruner.
        left: the result of ``Method.unfinished``.
        k: outer iterations that ended.
        watch: the steps that were seen; None where no optimizer was bound.
    """
    if left is not None:
        LOGGER.warning(
            "%s is hard-pruned at %s: the rest is cut off at once. Constrained training was shorter than "
            "the Pruner was told (steps_per_update=, updates=)",
            type(method).__name__,
            left,
        )
    if method.needs_updates and k == 0 and watch is not None and watch.steps:
        way_out = "at the end of every outer iteration, or where pruner.due says so"
        if method.has_inner_loop:
            way_out += "; where it never does, train longer, or give the method fewer inner_steps"
        LOGGER.warning(
            "hard_prune() comes after %d steps and no update(): Z and the multipliers are those of the beginning. "
            "Call update() %s",
            *(watch.steps, way_out),
        )
