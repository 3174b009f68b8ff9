"""The user's limits on which channels may be removed: patterns, frozen weights, the optimizer."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.budgets import Budget, matches, matching
from detprune.channels.groups import channel_groups
from detprune.channels.trace import Trace
from detprune.errors import InputError, listed
from detprune.loggers import logger
from detprune.networks.forward_weights import has_own_forward, loses_zeros
from detprune.networks.optimizers import held_of
from detprune.networks.parametrizations import computed_weights

LOGGER = logger(__name__)


def tell_passed_over(model: nn.Module, budget: Budget) -> None:
    """Warn of layers whose weight is no parameter, so that they and what feeds them keep their channels."""
    chosen = [
        whole
        for whole in computed_weights(model)
        if isinstance(whole.module, nn.Linear | nn.modules.conv._ConvNd)
        and whole.name.rpartition(".")[2] == "weight"
        and _is_asked_for(budget, whole.name, *whole.parts)
    ]
    if chosen:
        LOGGER.warning(
            "%d layer(s) keep all channels, and so do those that feed them, because their weights are no parameters:"
            "\n  %s\nTurn them into parameters with the call on each line, before the optimizer is made",
            len(chosen),
            "\n  ".join(
                f"{whole.name} is computed by {whole.what}: {whole.remedy}" for whole in chosen
            ),
        )
    _tell_changed_in_forward(model, budget)


def _tell_changed_in_forward(model: nn.Module, budget: Budget) -> None:
    """Warn of layers whose own forward changes the weight, as weight standardisation does: they keep their channels."""
    found = [
        f"{name} by {type(module).__name__}.forward"
        for name, module in ((f"{path}.weight", m) for path, m in model.named_modules())
        if has_own_forward(module)
        and _is_asked_for(budget, name)
        and loses_zeros(module, _with_zeros(module.weight))
    ]
    if found:
        LOGGER.warning(
            "%d layer(s) keep all channels, and so do those that feed them, because their weights are changed before "
            "they are used (as by weight standardisation):\n  %s",
            len(found),
            "\n  ".join(found),
        )


def _is_asked_for(budget: Budget, name: str, *parts: str) -> bool:
    """Whether a budget includes a weight, and excludes neither it nor the parameters from which it is computed."""
    if budget.include is not None and not any(matches(name, p) for p in budget.include):
        return False
    return not any(matches(one, p) for one in (name, *parts) for p in budget.exclude)


def _with_zeros(weight: Tensor) -> Tensor:
    """A copy in which every second number is 0."""
    copied = weight.detach().clone().flatten()
    copied[::2] = 0
    return copied.reshape(weight.shape)


def channels_that_stay(
    model: nn.Module, record: Trace, budget: Budget, optimizer: Optimizer | None
) -> Callable[[str], str | None]:
    """A function that says why the user's limits keep a parameter's channels; it returns None if they may go.

    Raises:
        InputError: the optimizer is one of another model; a pattern matches nothing, or names only a part of
            weights that write the same channels.
    """
    names = record.parameters
    excluded = {n for pattern in budget.exclude for n in matching(pattern, names, "exclude")}
    included = None
    if budget.include is not None:
        included = {n for pattern in budget.include for n in matching(pattern, names, "include")}
    held = held_of(optimizer, model)
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(f"{path}.{local}")

    def fixed(name: str) -> str | None:
        tensor = record.tensors[name]
        if not tensor.requires_grad:
            return "is frozen (requires_grad is False), so that training cannot make up for it"
        if held is not None and id(tensor) not in held:
            return "is not held by the optimizer"
        if len(owners[id(tensor)]) > 1:
            return "is shared between modules"
        return None

    def stays(name: str) -> str | None:
        if name in excluded:
            return "is excluded"
        if included is not None and record.tensors[name].dim() > 1 and name not in included:
            return "is not included"
        return fixed(name)

    if included is None and not excluded:
        return stays
    families = _writers(record, fixed)
    _check_whole("exclude", excluded, families, record)
    if included is not None:
        weights = {name for name in included if record.tensors[name].dim() > 1}
        _check_whole("include", weights, families, record)
    return stays


def _writers(record: Trace, keep: Callable[[str], str | None]) -> list[list[str]]:
    """For every family that could be removed, the parameters that write it."""
    groups = channel_groups(replace(record, labels=copy.deepcopy(record.labels)), keep)
    writers: list[list[str]] = [[] for _ in groups.families]
    for name, dim in record.written:
        for number in groups.families_of(groups.slices[name, dim]):
            writers[number].append(name)
    return writers


def _check_whole(
    field: str, named: set[str], families: Sequence[Sequence[str]], record: Trace
) -> None:
    """Refuse patterns that name some, but not all, weights of a family; biases and scales need not be named.

    Raises:
        InputError: a pattern does; the weights that are missing are listed.
    """
    problems = []
    for writers in families:
        weights = [name for name in writers if record.tensors[name].dim() > 1] or list(writers)
        inside = [name for name in writers if name in named]
        lacking = [name for name in weights if name not in named]
        if inside and lacking:
            problems.append(f"{listed(inside)} without {listed(lacking)}")
    if problems:
        problems = list(dict.fromkeys(problems))
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise InputError(
            f"{field} names only a part of weights that write the same channels and stay or go together:\n  "
            + "\n  ".join(problems[:8])
            + f"{more}\nName all weights of a line in {field}, or none of them."
        )
