"""Checks of a pruner's saved state before any of it is loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detprune.errors import InputError, listed
from detprune.loggers import logger
from detprune.methods import OuterIteration
from detprune.networks.wrappers import unwrap

LOGGER = logger(__name__)

_GO_BACK = (
    "the state is damaged or of another version of detprune: go back to an earlier checkpoint"
)
_KEYS = ("method", "layers", "masks", "state", "loss_sum", "loss_count", "history")


def check_saved_state(
    state: object, weights: Mapping[str, Tensor], method: str, kind: str, pruned: bool
) -> dict[str, Any]:
    """Return the state, if a pruner can continue with it.

    Args:
        state: a result of ``Pruner.state_dict``.
        weights: the pruned weights by name.
        method: the pruner's method, by name.
        kind: the class of its set, by name.
        pruned: whether the pruner has hard-pruned.

    Raises:
        InputError: something else than a state; a state of another method, set or layers, or one from
            before hard pruning for a pruner that has hard-pruned.
    """
    if not isinstance(state, dict):
        raise InputError(
            f"the saved pruner state is a {type(state).__name__}; pass what pruner.state_dict() returned"
        )
    if lacking := [key for key in _KEYS if key not in state]:
        raise InputError(
            f"the saved pruner state lacks {', '.join(lacking)}; pass what pruner.state_dict() returned"
        )
    names = list(weights)
    saved = state["layers"]
    if not isinstance(saved, list | tuple) or not all(isinstance(name, str) for name in saved):
        raise InputError(f"the saved pruner state names no layers; {_GO_BACK}")
    if list(saved) != names:
        missing = sorted(set(names) - set(saved))
        extra = sorted(set(saved) - set(names))
        raise InputError(
            f"the saved pruner state is for other layers: missing {missing}, extra {extra}; "
            "use the model, include and exclude that it was saved with"
        )
    masks = state["masks"]
    if masks is None and pruned:
        raise InputError(
            "the saved pruner state is from before hard pruning, but this pruner has hard-pruned "
            "already; load it into a new Pruner"
        )
    if masks is None and state["method"] != method:
        raise InputError(
            f"the saved pruner state is of method {state['method']!r}, but this pruner runs "
            f"{method!r}; use the method it was saved with"
        )
    if masks is None and state.get("set", kind) != kind:  # states of earlier versions name none
        raise InputError(
            f"the saved pruner state is of the set {state['set']}, this pruner has {kind}; use the set it was "
            "saved with"
        )
    if masks is not None:
        check_masks(masks, weights)
    _check_progress(state)
    return state


def _check_progress(state: Mapping[str, Any]) -> None:
    inner = state["state"]
    scalars = inner.get("scalars") if isinstance(inner, Mapping) else None
    if not isinstance(scalars, Mapping) or not isinstance(inner.get("tensors"), Mapping):
        raise InputError(
            "the saved pruner state holds no tensors and scalars of its method; " + _GO_BACK
        )
    k, count, total = scalars.get("k"), state["loss_count"], state["loss_sum"]
    for what, value in (("number k of outer iterations", k), ("loss_count", count)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(
                f"the {what} in the saved pruner state is {value!r}, allowed is a whole number, 0 or more; {_GO_BACK}"
            )
    if (
        isinstance(total, bool)
        or not isinstance(total, int | float)
        or not -math.inf < total < math.inf
    ):
        raise InputError(
            f"loss_sum in the saved pruner state is {total!r}, no finite number; {_GO_BACK}"
        )
    for kind, tensors in inner["tensors"].items():
        for name, tensor in tensors.items() if isinstance(tensors, Mapping) else ((kind, tensors),):
            if not isinstance(tensor, Tensor):
                raise InputError(
                    f"{kind} of {name} in the saved pruner state is a {type(tensor).__name__}, no tensor; "
                    f"{_GO_BACK}"
                )
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InputError(
                    f"{kind} of {name} in the saved pruner state holds NaN or infinity: training had diverged; go "
                    "back to an earlier checkpoint, and lower the learning rate or rho"
                )
    known = {field.name for field in fields(OuterIteration)}
    history = state["history"]
    entries = history if isinstance(history, list) else [history]
    for entry in entries:
        if not isinstance(entry, Mapping) or not {"k", "task_loss"} <= set(entry) <= known:
            raise InputError(
                f"the history in the saved pruner state holds {str(entry)[:80]!r}, which is no outer iteration; "
                f"{_GO_BACK}"
            )


def maskable(masks: Mapping[str, Tensor], model: nn.Module) -> tuple[str, ...]:
    """The names of the weights that masks are of.

    Args:
        masks: boolean supports by name.
        model: the network; it may be wrapped.

    Raises:
        InputError: names of no parameter, or of biases and norms, which only masks of whole channels have.
    """
    parameters = dict(unwrap(model).named_parameters(remove_duplicate=False))
    if unknown := [name for name in masks if name not in parameters]:
        raise InputError(
            f"the masks are of another model: this one has no parameter {listed(unknown)}, but {listed(parameters)}; "
            "use the model they were saved with, and names without the prefix of a wrapper (module., _orig_mod.)"
        )
    if flat := [name for name in masks if parameters[name].dim() < 2]:
        raise InputError(
            f"there are masks of {listed(flat)}: they are masks of whole channels, which are held by the Pruner with "
            "CoupledChannels alone. Keep that one, or make one as before and load_state_dict() its saved state; or "
            "take the channels out with shrink(), after which nothing is to be held"
        )
    return tuple(masks)


def check_masks(masks: object, weights: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """The masks in the order of the weights.

    Args:
        masks: boolean supports by name.
        weights: the pruned weights by name.

    Raises:
        InputError: something else than masks, masks of another model, or masks that keep nothing.
    """
    if not isinstance(masks, Mapping):
        raise InputError(f"the masks are a {type(masks).__name__}; pass boolean tensors by name")
    wrong = []
    for name, mask in masks.items():
        if not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"the mask of {name} is of {kind}; masks are boolean tensors")
        if name not in weights or mask.shape != weights[name].shape:
            wrong.append(f"{name} has shape {tuple(mask.shape)}")
    wrong += [f"{name} has none" for name in weights if name not in masks]
    if wrong:
        raise InputError(
            f"the masks are of another model: {'; '.join(wrong[:5])}; use the model they were saved with"
        )
    ordered = [masks[name] for name in weights]
    empty = [name for name, mask in zip(weights, ordered, strict=True) if not bool(mask.any())]
    if empty and len(empty) == len(ordered):
        raise InputError(
            f"the masks keep no weight at all: {listed(empty)} are False everywhere, but a mask is True where a "
            "weight is kept; were they inverted? Pass pruner.masks"
        )
    if empty:  # a global budget may keep no weight of a tensor
        LOGGER.warning(
            "the masks keep no weight of %s: these layers give a constant", listed(empty)
        )
    return ordered


def masked_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by name of a copy of the pruned model, or of `AveragedModel` of it.

    Raises:
        InputError: a model without weights of the masks' names and shapes.
    """
    model = unwrap(model)
    if isinstance(model, AveragedModel):
        model = unwrap(model.module)
    weights: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    missing = [n for n, m in masks.items() if n not in weights or weights[n].shape != m.shape]
    if missing:
        raise InputError(
            f"the model has no weights {listed(missing)} of the masks' shapes; pass a copy of the model that "
            "was pruned"
        )
    return weights
