"""Removal of channels from a network: the result has plain modules with fewer channels, and the same outputs."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from detprune.channels.copying import copied
from detprune.channels.trace import named_tensors
from detprune.errors import InputError, listed
from detprune.files import load_tensors
from detprune.networks.finite import without_numbers
from detprune.networks.optimizers import held_by

Kept = Mapping[str, Mapping[int, Tensor]]
"""Name of a parameter or buffer → dimension → indices that are kept, ascending."""

Widths = dict[str, dict[str, int]]
"""Name of a module → attribute that states a number of channels → the number."""


def removed(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of ``model`` without the indices that are not kept; its classes stay what they are.

    Args:
        model: the network; it does not change.
        kept: indices to keep, of each tensor that shrinks.
    """
    small = copied(model)
    with torch.no_grad():
        _replace(small, {n: _kept(t, kept[n]) for n, t, _ in named_tensors(small) if n in kept})
    return small


def _kept(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    small = tensor.detach()
    for dim, indices in dims.items():
        small = small.index_select(dim, indices.to(tensor.device))
    for dims_of, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        other = tensor.dim() == dims_of and not tensor.is_contiguous()
        if other and tensor.is_contiguous(memory_format=memory_format):
            return small.clone(memory_format=memory_format)
    return small.clone()


def _replace(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Replace the values of parameters and buffers, and update the widths that their modules state."""
    replaced = set()
    for name, value in values.items():
        path, _, local = name.rpartition(".")
        old: Tensor = getattr(model.get_submodule(path), local)
        old.data = value.to(old.device, old.dtype)  # the same object: modules may share it
        old.grad = None
        replaced.add(id(old))
    for module in model.modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if not replaced.isdisjoint(map(id, own)):
            for attribute, number in stated_widths(module).items():
                setattr(module, attribute, number)


def stated_widths(module: nn.Module) -> dict[str, int]:
    """The attributes in which a module of PyTorch states its channels, with values that fit its present tensors."""
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
    if isinstance(module, _NormBase):
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
    """Copy an optimizer's state of the large network, entry by entry, to an optimizer of the small network.

    Args:
        optimizer, model: the large network and what has trained it.
        new_optimizer, small: the small one, and an optimizer of the same kind over its parameters.
        kept: indices that were kept of each tensor.

    Raises:
        InputError: optimizers of two kinds, or of other parameters; a state that does not have the shapes of the
            weights. Nothing is changed then.
    """
    if type(optimizer) is not type(new_optimizer):
        raise InputError(
            f"the state of {type(optimizer).__name__} cannot be carried over to {type(new_optimizer).__name__}; "
            "make the new optimizer of the same class"
        )
    old = dict(model.named_parameters())
    new = dict(small.named_parameters())
    if other := [n for n, p in new.items() if n not in old or p.shape != _shape(old[n], kept, n)]:
        raise InputError(
            f"{listed(other)} do not have the shapes of the shrunk network; pass the network that shrink() returned"
        )
    held = held_by(new_optimizer)
    if held.isdisjoint(map(id, new.values())):
        raise InputError(
            "the new optimizer holds no parameter of the small network; make it from small.parameters()"
        )
    states: dict[Tensor, Any] = {}
    for name, parameter in new.items():
        state = optimizer.state.get(old[name])
        if state and id(parameter) in held:
            states[parameter] = {
                key: _state_of(f"{key} of {name}", value, old[name], kept.get(name, {}))
                for key, value in state.items()
            }
    new_optimizer.state.update(states)


def _shape(tensor: Tensor, kept: Kept, name: str) -> Sequence[int]:
    """The shape of a tensor after removal."""
    shape = list(tensor.shape)
    for dim, indices in kept.get(name, {}).items():
        shape[dim] = len(indices)
    return torch.Size(shape)


def _state_of(what: str, value: Any, parameter: Tensor, dims: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if value.shape == parameter.shape:
        return _kept(value, dims)
    if value.dim() and dims:
        raise InputError(
            f"the optimizer's {what} has the shape {tuple(value.shape)}, not the weight's, and cannot be carried "
            "over; start with a new optimizer"
        )
    return value.detach().clone()


def widths_of(model: nn.Module) -> Widths:
    """The widths that the modules of a network state; with the dense network, they rebuild its shape."""
    found = {name: stated_widths(module) for name, module in model.named_modules()}
    return {name: own for name, own in found.items() if own}


def resized_and_loaded(model: nn.Module, saved: object, path: object) -> nn.Module:
    """Give a dense network the widths of a file, and its weights.

    Args:
        model: built as the dense network was; changed in place, and returned.
        saved: ``{"state_dict": …, "widths": …}``.
        path: path of the file, for messages.

    Raises:
        InputError: the file holds something else, or is of another network.
    """
    if not isinstance(saved, Mapping) or not {"state_dict", "widths"} <= set(saved):
        raise InputError(f"{path} holds no network with fewer channels (state_dict and widths)")
    state, widths = saved["state_dict"], saved["widths"]
    if not isinstance(widths, Mapping) or not isinstance(state, Mapping):
        raise InputError(f"{path}: state_dict and widths are no mappings, the file is damaged")
    named = {name: tensor for name, tensor, _ in named_tensors(model)}
    _check_tensors(state, named, path)
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
        names = {*found, *widths}
        other = min((n for n in names if found.get(n) != widths.get(n)), key=str)
        raise InputError(
            f"{path}: {other} states {widths.get(other)}, its weights {found.get(other)}; take another copy of the file"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {error}") from error
    if bad := without_numbers(model):
        raise InputError(
            f"{path} holds NaN or infinite values in {listed(bad)}; take another copy of the file"
        )
    return model


def _check_tensors(state: Mapping[Any, Any], named: Mapping[str, Tensor], path: object) -> None:
    """Refuse values in place of weights that are no tensors, or not of the network's kind.

    Raises:
        InputError: no tensors, tensors without values or of another kind of number.
    """

    def refuse(names: list[str], what: str) -> None:
        if names:
            raise InputError(
                f"{path}: {listed(names)} in state_dict {what}; take another copy of the file"
            )

    odd = [str(n) for n, v in state.items() if not isinstance(n, str) or not isinstance(v, Tensor)]
    refuse(odd, "are no tensors with a name")
    tensors: list[tuple[str, Tensor]] = list(state.items())
    strange = [n for n, v in tensors if v.is_meta or v.layout != torch.strided or v.is_quantized]
    refuse(strange, "are no plain tensors with values")
    kinds = [
        n
        for n, v in tensors
        if n in named and (v.is_complex() or v.is_floating_point() != named[n].is_floating_point())
    ]
    refuse(kinds, "are another kind of number than the network's")


def saved_with_widths(path: Path) -> dict[str, Any] | None:
    """The content of a file of a network from which channels were removed; None for any other file."""
    try:
        saved = load_tensors(path, "give another checkpoint")
    except InputError:  # the loader of other files raises the error
        return None
    return saved if {"state_dict", "widths"} <= set(saved) else None


def _is_part(value: Tensor, tensor: Tensor) -> bool:
    return value.dim() == tensor.dim() and all(
        n <= m for n, m in zip(value.shape, tensor.shape, strict=True)
    )
