"""The choice of the weights to prune, and the check of all of them before training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from detprune.budgets import Budget, matches, matching
from detprune.channels import BoundChannels
from detprune.errors import InputError
from detprune.networks.forward_weights import has_own_forward, loses_zeros
from detprune.networks.left_out import tell_left_out, tell_unfit
from detprune.networks.optimizers import held_of
from detprune.networks.parametrizations import Computed, computed_weights
from detprune.networks.wrappers import SHARDED, check_initialized
from detprune.sets import SparsitySet

PRUNED_MODULES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Modules whose weight is pruned by default; normalisation scales and biases never are."""


@dataclass(frozen=True)
class Layer:
    """A weight to be pruned: its name in the model, the parameter, the module that owns it, its sparsity."""

    name: str
    weight: nn.Parameter
    module: nn.Module
    sparsity: float


def select_layers(
    model: nn.Module, sparsity_set: SparsitySet, budget: Budget, optimizer: Optimizer | None
) -> list[Layer]:
    """Choose the weights to prune and check them all.

    Raises:
        InputError: patterns that match nothing, or the list of all weights that cannot be pruned as
            asked (shape against the set, frozen, shared, unknown to the optimizer, worked out from
            other parameters) with the remedy.
    """
    if isinstance(sparsity_set, BoundChannels):
        return _members(model, sparsity_set)
    budget.check_single_weights()
    owners = _owners(model)
    computed = computed_weights(model)
    names, passed_over = _chosen_names(owners, computed, budget)
    if passed_over:
        _refuse_computed(passed_over)
    if budget.include is None:
        everything = {o.name: (o.parameter, o.module) for o in owners.values()}
        worked_out = {part for whole in computed for part in whole.parts}
        excluded = {  # on purpose, by any name of the weight
            owner.name
            for name, owner in owners.items()
            if any(matches(name, pattern) for pattern in budget.exclude)
        }
        tell_left_out(model, everything, {*everything} - {*names} - worked_out - excluded)
        if not isinstance(budget.allocation, Mapping):
            names = _fitting(model, {name: owners[name] for name in names}, sparsity_set)
    weights = {name: owners[name].parameter for name in names}
    if budget.pruned_share is None and budget.allocation == "uniform":
        sparsities = dict.fromkeys(names, sparsity_set.check_sparsity(None))
    else:
        sparsities = budget.allocate({name: weight.shape for name, weight in weights.items()})
    if not sparsities:
        raise InputError(
            "no weight is selected for pruning; include=[…] takes name patterns, and without it the "
            "model must have convolution or linear modules that exclude=[…] leaves over"
        )
    held = held_of(optimizer, model)
    parts = {part: whole for whole in computed for part in whole.parts}
    problems = [
        f"{name} {problem}"
        for name, sparsity in sparsities.items()
        for problem in chain(
            _problems(owners[name], sparsity_set, owners, held),
            _problem_of_part(parts.get(name)),
            _problem_in_forward(owners[name], sparsity_set, sparsity),
        )
    ]
    if problems:
        offenders = list(dict.fromkeys(line.split(" ", 1)[0] for line in problems))
        exclude = f"Leave them dense with exclude={offenders!r}, or remove the cause."
        if len(offenders) == len(sparsities):
            exclude = "These are all weights to be pruned: remove the cause."
        raise InputError(
            f"{len(offenders)} weight(s) cannot be pruned with {sparsity_set!r}:\n  "
            + "\n  ".join(problems)
            + f"\n{exclude}"
        )
    for sparsity in set(sparsities.values()):
        sparsity_set.check_sparsity(sparsity)
    return [Layer(name, weights[name], owners[name].module, s) for name, s in sparsities.items()]


def _fitting(
    model: nn.Module, chosen: Mapping[str, "_Owner"], sparsity_set: SparsitySet
) -> list[str]:
    """The weights that the set can hold; the others stay dense, and are told. All of them, if it can hold none."""
    reasons = {name: why for name, owner in chosen.items() if (why := _unfit(owner, sparsity_set))}
    if len(reasons) == len(chosen):
        return list(chosen)
    tell_unfit(model, sparsity_set, reasons)
    return [name for name in chosen if name not in reasons]


def _unfit(owner: "_Owner", sparsity_set: SparsitySet) -> str | None:
    return sparsity_set.problem_with(owner.parameter.shape) or sparsity_set.problem_in(owner.module)


def _members(model: nn.Module, channels: BoundChannels) -> list[Layer]:
    """The weights, biases and norms that channel groups consist of."""
    parameters = dict(model.named_parameters())
    if unusable := [f"{n} {why}" for n in channels.names if (why := _unusable(parameters[n]))]:
        raise InputError("channels cannot be pruned:\n  " + "\n  ".join(unusable))
    return [
        Layer(
            name,
            parameters[name],
            model.get_submodule(name.rpartition(".")[0]),
            channels.sparsity(number),
        )
        for number, name in enumerate(channels.names)
    ]


@dataclass(frozen=True)
class _Owner:
    """A parameter with the module that owns it, under its first name there."""

    name: str
    module: nn.Module
    parameter: nn.Parameter


def _owners(model: nn.Module) -> dict[str, _Owner]:
    """Every parameter with two dimensions or more, by name; a second name of a module leads to the first."""
    first: dict[tuple[int, int], _Owner] = {}
    owners = {}
    check_initialized(model)
    for prefix, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{local}" if prefix else local
            if parameter.dim() >= 2:
                owner = _Owner(name, module, parameter)
                owners[name] = first.setdefault((id(module), id(parameter)), owner)
    return owners


def _chosen_names(
    owners: dict[str, _Owner], computed: Sequence[Computed], budget: Budget
) -> tuple[list[str], list[Computed]]:
    """The names of the weights to prune, and the computed weights that would be pruned if they were parameters."""
    names = [*owners, *(whole.name for whole in computed)]
    if budget.include is None:
        chosen = {
            name
            for name, owner in owners.items()
            if isinstance(owner.module, PRUNED_MODULES) and name.rpartition(".")[2] == "weight"
        }
        chosen |= {
            whole.name
            for whole in computed
            if isinstance(whole.module, PRUNED_MODULES)
            and whole.name.rpartition(".")[2] == "weight"
        }
    else:
        chosen = set(_all_matching(budget.include, names, "include"))
    excluded = set(_all_matching(budget.exclude, names, "exclude"))
    chosen -= excluded
    canonical = {owner.name for name, owner in owners.items() if name in chosen}
    canonical -= {owner.name for name, owner in owners.items() if name in excluded}
    passed_over = [whole for whole in computed if whole.name in chosen and _wanted(whole, budget)]
    return [name for name in owners if name in canonical], passed_over


def _wanted(whole: Computed, budget: Budget) -> bool:
    """Whether the budget gives a computed weight a sparsity."""
    if budget.pruned_share is not None or not isinstance(budget.allocation, Mapping):
        return True
    return any(matches(whole.name, pattern) for pattern in budget.allocation)


def _refuse_computed(passed_over: Sequence[Computed]) -> None:
    lines = [f"{whole.name} is computed by {whole.what}: {whole.remedy}" for whole in passed_over]
    names = [whole.name for whole in passed_over]
    raise InputError(
        f"{len(names)} weight(s) are no parameters, so that zeros cannot be held in them:\n  "
        + "\n  ".join(lines)
        + "\nTurn them into parameters with the call on each line, before the optimizer is made, or leave them "
        f"dense with exclude={names!r}."
    )


def _all_matching(patterns: Iterable[str], names: Iterable[str], field: str) -> Iterable[str]:
    return chain.from_iterable(matching(pattern, names, field) for pattern in patterns)


def _problem_of_part(whole: Computed | None) -> Iterable[str]:
    """The problem of a parameter from which a weight is computed; a spectral norm is none, for it keeps zeros."""
    if whole is not None and not whole.keeps_zeros:
        yield f"is a part of {whole.name}, which is computed by {whole.what}: {whole.remedy}"


def _problem_in_forward(owner: _Owner, sparsity_set: SparsitySet, sparsity: float) -> Iterable[str]:
    """The problem of a weight that its module changes before it is used, as weight standardisation does."""
    module, weight = owner.module, owner.parameter
    if not has_own_forward(module) or module.weight is not weight:
        return
    if _unusable(weight) or _unfit(owner, sparsity_set):
        return  # told already
    if loses_zeros(module, sparsity_set.project(weight.detach(), sparsity)):
        yield (
            f"is changed by {type(module).__name__}.forward before it is used (as weight standardisation does), so "
            "that its zeros are none there; whole filters may stay zero: Filter()"
        )


def _problems(
    owner: _Owner, sparsity_set: SparsitySet, owners: Mapping[str, _Owner], held: set[int] | None
) -> Iterable[str]:
    weight = owner.parameter
    if unusable := _unusable(weight):
        yield unusable
        return
    problem = _unfit(owner, sparsity_set)
    if problem is not None:
        yield problem
    if not weight.requires_grad:
        yield "is frozen (requires_grad is False), so that training cannot make up for its zeros"
    same = [
        name
        for name, other in owners.items()
        if other.parameter is weight and other.module is not owner.module
    ]
    if same:
        yield f"is shared with {', '.join(same)}"
    if held is not None and id(weight) not in held:
        yield "is not held by the optimizer"


def _unusable(weight: nn.Parameter) -> str | None:
    """The reason why the core cannot compute with a tensor; None if it can."""
    if type(weight.data).__name__ == "DTensor" or hasattr(weight, "ds_id"):
        return f"is sharded (FSDP2, tensor parallel, ZeRO-3), {SHARDED}"
    converted: bool = is_traceable_wrapper_subclass(cast(object, weight))
    if converted:
        return f"is a {type(weight.data).__name__}, no plain tensor; prune before it is converted"
    if weight.is_meta:
        return "is on the meta device and has no values; load the weights first"
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is of {weight.dtype}; float16, bfloat16, float32 and float64 can be pruned"
    if weight.layout != torch.strided:
        return f"has the layout {weight.layout}; only dense (strided) tensors can be pruned"
    if weight.is_inference():
        return (
            "was made under torch.inference_mode(), so that it cannot be trained; load it outside"
        )
    if weight.numel() == 0:
        return f"has no elements (shape {tuple(weight.shape)})"
    return None
