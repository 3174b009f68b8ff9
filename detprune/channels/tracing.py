"""Runs a network once and follows its channels through every operation (``operations.py``)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detprune.channels.pointwise import follow_pointwise
from detprune.channels.rules import RULES
from detprune.channels.trace import Trace, named_tensors
from detprune.channels.tracker import Tracker
from detprune.errors import InputError
from detprune.loggers import logger

LOGGER = logger(__name__)

Forward = Callable[..., object]
"""``forward(model, *inputs)``: runs the network, and returns the outputs that count."""


def trace(model: nn.Module, inputs: Sequence[object], forward: Forward, *, strict: bool) -> Trace:
    """Run ``model`` in evaluation mode and record what its channels have to do with each other.

    Args:
        model: the network; its mode is restored, and nothing of it changes.
        inputs: what ``forward`` is given after the model.
        forward: how it is run; every tensor in what it returns keeps its channels.
        strict: whether a view to sizes that were written out counts as an unknown operation.

    Raises:
        InputError: the network does not run on these inputs.
    """
    found = list(named_tensors(model))
    record = Trace({n: t for n, t, _ in found}, {n: module for n, _, module in found})
    tracker = Tracker(record, strict)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        _run(model, inputs, forward, tracker)
        if record.unused:
            _run_for_training(model, inputs, forward, tracker)
    except InputError:
        raise
    except Exception as error:  # whatever the user's own network raises
        raise InputError(
            f"the network does not run on the example inputs ({_described(inputs)}): "
            f"{type(error).__name__}: {error}. Pass inputs that model(*inputs) takes, on its device and of its dtype"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    return record


def _run(model: nn.Module, inputs: Sequence[object], forward: Forward, tracker: Tracker) -> None:
    with (
        torch.no_grad(),
        torch.autocast(_device_type(model), enabled=False),
        _Functions(tracker),
        _Operations(tracker),
    ):
        outputs = forward(model, *inputs)
    for tensor in _tensors(outputs, set()):
        tracker.freeze(tensor, "is an output of the network")


def _run_for_training(
    model: nn.Module, inputs: Sequence[object], forward: Forward, tracker: Tracker
) -> None:
    """Follow what runs in training only, auxiliary heads for example; batch norms keep their statistics."""
    for module in model.modules():
        module.training = not isinstance(module, _SAME_IN_EVALUATION)
    tracker.counting = False
    try:
        _run(model, inputs, forward, tracker)
    except Exception as error:  # noqa: BLE001  the user's own network may want targets
        LOGGER.debug("the network does not run in training mode: %s", error)


_SAME_IN_EVALUATION = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


class _Functions(TorchFunctionMode):
    """Sees the calls whose meaning is lost in what they are made of."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tracker = self._tracker
        if func is torch.nn.functional.linear:
            tracker.paused = True
            try:
                out = func(*args, **kwargs)
            finally:
                tracker.paused = False
            tracker.linear(args, kwargs, out)
            return out
        before, tracker.function = tracker.function, getattr(func, "__name__", "")
        tracker.arguments = args
        try:
            return func(*args, **kwargs)
        finally:
            tracker.function = before


class _Operations(TorchDispatchMode):
    """Sees every operation that is carried out."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracker = tracker

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tracker = self._tracker
        if tracker.paused:
            return out
        tracker.count(func, args, kwargs, out)
        name = func._schema.name.removeprefix("aten::")
        plain = name.removesuffix("_") if func._schema.is_mutable else name
        if (rule := RULES.get(plain)) is not None:
            rule(tracker, func, args, kwargs, out)
        elif torch.Tag.pointwise in func.tags or plain in ("_prelu_kernel", "hardswish"):
            follow_pointwise(tracker, func, args, kwargs, out)
        else:
            tracker.freeze_all((args, kwargs), f"goes through {name}, which is not followed")
        return out


def _device_type(model: nn.Module) -> str:
    return next((p.device.type for p in model.parameters()), "cpu")


def _described(inputs: Sequence[object]) -> str:
    return ", ".join(
        f"{tuple(i.shape)} {i.dtype} on {i.device}" if isinstance(i, Tensor) else type(i).__name__
        for i in inputs
    )


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """All tensors in an output, in the attributes of unknown objects too."""
    for leaf in tree_leaves(value):
        if id(leaf) in seen:
            continue
        seen.add(id(leaf))
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module | type):
            yield from _tensors(list(vars(leaf).values()), seen)
