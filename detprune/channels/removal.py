"""Takes channels out of a network: plain modules with fewer channels, and the same outputs."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from detprune.channels.trace import named_tensors
from detprune.errors import InputError

Kept = Mapping[str, Mapping[int, Tensor]]
"""By name of a parameter or buffer and by dimension: the indices that are kept, ascending."""

Widths = dict[str, dict[str, int]]
"""By name of a module: its attributes that state numbers of channels."""


def removed(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of ``model`` without the indices that are not kept; its classes stay what they are.

    Args:
        model: the network, left alone.
        kept: what to keep of each tensor that shrinks.
    """
    small = copy.deepcopy(model)
    with torch.no_grad():
        _replace(small, {n: _kept(t, kept[n]) for n, t, _ in named_tensors(small) if n in kept})
    return small


def _kept(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    for dim, indices in dims.items():
        tensor = tensor.index_select(dim, indices.to(tensor.device))
    return tensor.detach().clone()


def _replace(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put tensors of other shapes in the place of parameters and buffers, and set what modules say of them."""
    touched: dict[str, nn.Module] = {}
    for name, value in values.items():
        path, _, local = name.rpartition(".")
        module = model.get_submodule(path)
        old = getattr(module, local)
        touched[path] = module
        if isinstance(old, nn.Parameter):
            old.data = value.to(old.dtype)
            old.grad = None
        else:
            setattr(module, local, value)
    for module in touched.values():
        for attribute, number in stated_widths(module).items():
            setattr(module, attribute, number)


def stated_widths(module: nn.Module) -> dict[str, int]:
    """What a module of PyTorch says about its channels, as its tensors have it now."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return {}
    if isinstance(module, _ConvNd):
        transposed = module.transposed
        outer, inner = weight.shape[0], weight.shape[1]
        if module.groups == 1:
            ins, outs = (outer, inner) if transposed else (inner, outer)
            return {"in_channels": ins, "out_channels": outs}
        per_group = (module.in_channels if transposed else module.out_channels) // module.groups
        groups = outer // per_group
        ins, outs = (outer, inner * groups) if transposed else (inner * groups, outer)
        return {"in_channels": ins, "out_channels": outs, "groups": groups}
    if isinstance(module, nn.Linear):
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    if isinstance(module, _BatchNorm | nn.InstanceNorm2d):
        return {"num_features": weight.shape[0]}
    if isinstance(module, nn.GroupNorm):
        per_group = module.num_channels // module.num_groups
        return {"num_channels": weight.shape[0], "num_groups": weight.shape[0] // per_group}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": weight.shape[0]}
    return {}


def carry_over(
    optimizer: Optimizer, model: nn.Module, new_optimizer: Optimizer, small: nn.Module, kept: Kept
) -> None:
    """Give an optimizer of the small network the state that one of the large network has of the same entries.

    Args:
        optimizer, model: the large network and what has trained it.
        new_optimizer, small: the small one, and an optimizer of the same kind over its parameters.
        kept: what was kept of each tensor.

    Raises:
        InputError: optimizers of two kinds.
    """
    if type(optimizer) is not type(new_optimizer):
        raise InputError(
            f"the state of {type(optimizer).__name__} cannot be carried over to {type(new_optimizer).__name__}; "
            "make the new optimizer of the same class"
        )
    old = dict(model.named_parameters())
    for name, parameter in small.named_parameters():
        state = optimizer.state.get(old[name])
        if state:
            new_optimizer.state[parameter] = {
                key: _state_of(value, old[name], kept.get(name, {})) for key, value in state.items()
            }


def _state_of(value: Any, parameter: Tensor, dims: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    return _kept(value, dims) if value.shape == parameter.shape else value.detach().clone()


def widths_of(model: nn.Module) -> Widths:
    """What the modules of a network say about their channels: with its classes, what rebuilds its shape."""
    found = {name: stated_widths(module) for name, module in model.named_modules()}
    return {name: own for name, own in found.items() if own}


def resized_and_loaded(model: nn.Module, saved: object, path: object) -> nn.Module:
    """Give a dense network the widths of a file, and its weights.

    Args:
        model: built as the dense network was; changed in place, and returned.
        saved: ``{"state_dict": …, "widths": …}``.
        path: of the file, for messages.

    Raises:
        InputError: the file holds something else, or is of another network.
    """
    if not isinstance(saved, Mapping) or not {"state_dict", "widths"} <= set(saved):
        raise InputError(f"{path} holds no network with fewer channels (state_dict and widths)")
    state, widths = saved["state_dict"], saved["widths"]
    named = {name: tensor for name, tensor, _ in named_tensors(model)}
    if lacking := [name for name in named if name not in state and name in model.state_dict()]:
        raise InputError(f"{path} is of another network: it lacks {', '.join(lacking[:3])}")
    wrong = [n for n, t in named.items() if n in state and not _is_part(state[n], t)]
    if wrong:
        raise InputError(f"{path} is of another network: {', '.join(wrong[:3])} would have to grow")
    with torch.no_grad():
        _replace(
            model,
            {n: state[n] for n, t in named.items() if n in state and state[n].shape != t.shape},
        )
    found = widths_of(model)
    if found != widths:
        other = next((name for name in found if found[name] != widths.get(name)), "a module")
        raise InputError(
            f"{path}: {other} states {widths.get(other)}, its weights {found.get(other)}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {error}") from error
    return model


def _is_part(value: Tensor, tensor: Tensor) -> bool:
    return value.dim() == tensor.dim() and all(
        n <= m for n, m in zip(value.shape, tensor.shape, strict=True)
    )
