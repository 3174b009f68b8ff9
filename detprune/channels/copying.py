"""Copies of a network for trials, and runs of them without side effects."""

import copy
import random
import sys
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from detprune.errors import InputError


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; tensors of a training step that modules keep are copied without their autograd history.

    Raises:
        InputError: the network holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for leaf in tree_leaves(list(vars(module).values())):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"the network cannot be copied (copy.deepcopy: {error}), but channels are removed from a copy; keep "
            "objects that cannot be copied outside of the network"
        ) from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run networks without gradients, autocast, dropout and compilation; random states are restored afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    kind = next((p.device.type for p in model.parameters()), "cpu")
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
            _uncompiled(),
            _WithoutDropout(),
        ):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _uncompiled() -> AbstractContextManager[object]:
    """Run compiled code eagerly; does nothing if the compiler was not imported, for importing it takes seconds."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def same_noise() -> None:
    """Seed all generators with the same number; use it within ``undisturbed``."""
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


class _WithoutDropout(TorchFunctionMode):
    """Turns off dropout that a network applies even in evaluation mode, because it draws numbers for every channel."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "dropout" in getattr(func, "__name__", ""):
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


def fresh(inputs: Any) -> Any:
    """Copy the tensors in nested inputs, because a network may change them in place."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in an output, in order: in containers of any kind, and in the attributes of unknown objects."""
    return list(_tensors_in(value, set()))


def _tensors_in(value: object, seen: set[int]) -> Iterator[Tensor]:
    for leaf in tree_leaves(value):
        if id(leaf) in seen:
            continue
        if isinstance(leaf, Tensor):
            seen.add(id(leaf))
            yield leaf
        elif not isinstance(leaf, _PLAIN):
            seen.add(id(leaf))
            yield from _tensors_in(_contents(leaf), seen)


_PLAIN = (str, bytes, int, float, complex, type(None), type, nn.Module, np.ndarray)


def _contents(value: object) -> list[object]:
    """The values of a mapping, the items of a set, or the attributes (slots included) of an object."""
    found: list[object] = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, Mapping):
        found += list(value.values())
    elif isinstance(value, Set | list | tuple):
        found += list(value)
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else tuple(slots)
        found += [getattr(value, name) for name in names if hasattr(value, name)]
    return found
