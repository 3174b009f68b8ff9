"""Which weights are pruned, and everything that can be wrong with them, found before training."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from torch import nn
from torch.optim import Optimizer

from detprune.budgets import Budget, matching
from detprune.errors import InputError
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
    """A weight that is pruned: its name in the model, the parameter, its owner, its sparsity."""

    name: str
    weight: nn.Parameter
    module: nn.Module
    sparsity: float


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own model inside DistributedDataParallel, DataParallel or torch.compile."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def select_layers(
    model: nn.Module, sparsity_set: SparsitySet, budget: Budget, optimizer: Optimizer | None
) -> list[Layer]:
    """Choose the weights to prune and check them all.

    Raises:
        InputError: patterns that match nothing, or the list of all weights that cannot be pruned as
            asked (shape against the set, frozen, shared, unknown to the optimizer) with the remedy.
    """
    owners = _owners(model)
    names = _chosen_names(owners, budget)
    weights = {name: owners[name][1] for name in names}
    if budget.target is None and budget.allocation == "uniform":
        sparsities = dict.fromkeys(names, sparsity_set.check_sparsity(None))
    else:
        sparsities = budget.allocate({name: weight.shape for name, weight in weights.items()})
    if not sparsities:
        raise InputError(
            "no weight is selected for pruning; include=[…] takes name patterns, and without it the "
            "model must have convolution or linear modules that exclude=[…] leaves over"
        )
    problems = [
        f"{name} {problem}"
        for name in sparsities
        for problem in _problems(name, weights[name], sparsity_set, model, optimizer)
    ]
    if problems:
        offenders = list(dict.fromkeys(line.split(" ", 1)[0] for line in problems))
        raise InputError(
            f"{len(offenders)} weight(s) cannot be pruned with {sparsity_set!r}:\n  "
            + "\n  ".join(problems)
            + f"\nLeave them dense with exclude={offenders!r}, or remove the cause."
        )
    for sparsity in set(sparsities.values()):
        sparsity_set.check_sparsity(sparsity)
    return [Layer(name, weights[name], owners[name][0], s) for name, s in sparsities.items()]


def _owners(model: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Every parameter with two dimensions or more, by name, with the module that owns it."""
    return {
        f"{prefix}.{name}" if prefix else name: (module, parameter)
        for prefix, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter.dim() >= 2
    }


def _chosen_names(owners: dict[str, tuple[nn.Module, nn.Parameter]], budget: Budget) -> list[str]:
    if budget.include is None:
        chosen = {
            name
            for name, (module, _) in owners.items()
            if isinstance(module, PRUNED_MODULES) and name.rpartition(".")[2] == "weight"
        }
    else:
        chosen = set(_all_matching(budget.include, owners, "include"))
    chosen -= set(_all_matching(budget.exclude, owners, "exclude"))
    return [name for name in owners if name in chosen]


def _all_matching(patterns: Iterable[str], names: Iterable[str], field: str) -> Iterable[str]:
    return chain.from_iterable(matching(pattern, names, field) for pattern in patterns)


def _problems(
    name: str,
    weight: nn.Parameter,
    sparsity_set: SparsitySet,
    model: nn.Module,
    optimizer: Optimizer | None,
) -> Iterable[str]:
    problem = sparsity_set.problem_with(weight.shape)
    if problem is not None:
        yield problem
    if not weight.requires_grad:
        yield "is frozen (requires_grad is False), so that training cannot make up for its zeros"
    same = [
        other
        for other, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is weight and other != name
    ]
    if same:
        yield f"is shared with {', '.join(same)}"
    if optimizer is not None and not any(
        weight is held for group in optimizer.param_groups for held in group["params"]
    ):
        yield "is not held by the optimizer"
