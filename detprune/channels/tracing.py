"""The tracing of a network: it is run once, and its channels are followed through every operation (``rules.py``)."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from detprune.channels.copying import copied, fresh, tensors_in, undisturbed
from detprune.channels.pointwise import follow_pointwise
from detprune.channels.rules import CHANGES_IN_PLACE, RULES
from detprune.channels.trace import Trace, named_tensors
from detprune.channels.tracker import Tracker
from detprune.errors import InputError, listed
from detprune.loggers import logger

LOGGER = logger(__name__)

Forward = Callable[..., object]
"""``forward(model, *inputs)``: runs the network, and returns the outputs that must not change."""


def trace(model: nn.Module, inputs: Sequence[object], forward: Forward) -> Trace:
    """Run a copy of ``model`` in evaluation mode, and record how its channels are coupled.

    Args:
        model: the network; neither it nor any random state changes.
        inputs: arguments of ``forward`` after the model.
        forward: runs the network; every tensor that it returns keeps its channels.

    Raises:
        InputError: the network does not run on these inputs, or it depends on values which of its layers run.
    """
    network = copied(model).eval()
    found = list(named_tensors(network))
    record = Trace({n: t for n, t, _ in found}, {n: module for n, _, module in found})
    tracker = Tracker(record)
    with undisturbed(network):
        try:
            _run(network, inputs, forward, tracker)
        except InputError:
            raise
        except Exception as error:  # whatever the user's own network raises
            raise InputError(
                f"the network does not run on the example inputs ({_described(inputs)}): {type(error).__name__}: "
                f"{error}. Pass inputs that model(*inputs) takes, on its device and of its dtype; or, for keyword "
                "arguments, a dict of them and forward=lambda model, batch: model(**batch)"
            ) from error
        tracker.counting = False
        if tracker.reads_values:
            _run_on_other_values(network, inputs, forward, tracker)
        if record.unused:
            _run_for_training(network, inputs, forward, tracker)
    if record.unused:
        LOGGER.warning(
            "%s took no part when the network ran on the example inputs: they stay as they are. If they are used "
            "later, pass forward=, a function that runs them too",
            listed(record.unused),
        )
    record.tensors = {name: tensor for name, tensor, _ in named_tensors(model)}
    record.owners = {name: module for name, _, module in named_tensors(model)}
    return record


def _run(model: nn.Module, inputs: Sequence[object], forward: Forward, tracker: Tracker) -> None:
    with _Functions(tracker), _Operations(tracker):
        given = fresh(inputs)
        tracker.depends_on_inputs(tensors_in(given))
        outputs = forward(model, *given)
    for tensor in tensors_in(outputs):
        tracker.freeze(tensor, "is an output of the network")
        del tensor
    del outputs, given
    if tracker.alive():
        gc.collect()
    for tensor in tracker.alive():
        tracker.freeze(tensor, "is kept by a module or a hook after the run")


def _run_on_other_values(
    model: nn.Module, inputs: Sequence[object], forward: Forward, tracker: Tracker
) -> None:
    """Check that the same layers run on other input values, where the network makes decisions by values.

    Raises:
        InputError: other layers run.
    """
    first = tracker.layers_run
    for scale in (-1.0, 0.0, 10.0):
        tracker.layers_run = []
        others = tree_map(lambda leaf, by=scale: _scaled(leaf, by), fresh(inputs))
        try:
            _run(model, others, forward, tracker)
        except Exception as error:  # noqa: BLE001  the user's own network may refuse other values
            LOGGER.debug("the network does not run on %g times the inputs: %s", scale, error)
            continue
        if tracker.layers_run != first:
            only = sorted(set(first) ^ set(tracker.layers_run)) or sorted(set(first))
            raise InputError(
                f"which layers of this network run depends on values ({listed(only)}), so that one run does not show "
                "how its channels are coupled. Pass forward=, which runs the network without that decision, or prune "
                "single weights (Unstructured())"
            )


def _scaled(leaf: object, by: float) -> object:
    return leaf * by if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _run_for_training(
    model: nn.Module, inputs: Sequence[object], forward: Forward, tracker: Tracker
) -> None:
    """Follow layers that run in training mode only, such as auxiliary heads; norms work as in evaluation."""
    for module in model.modules():
        module.training = not isinstance(module, nn.modules.batchnorm._NormBase)
    try:
        _run(model, inputs, forward, tracker)
    except Exception as error:  # noqa: BLE001  the user's own network may want targets
        LOGGER.debug("the network does not run in training mode: %s", error)


class _Functions(TorchFunctionMode):
    """Sees the calls of functions whose meaning is lost in the operations that they consist of."""

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
        name = getattr(func, "__name__", "")
        if name in _LEAVES_TORCH:
            tracker.freeze_all(args, f"goes through {name}, which is not followed")
        before, tracker.function = tracker.function, name
        try:
            return func(*args, **kwargs)
        finally:
            tracker.function = before


_LEAVES_TORCH = ("numpy", "__array__", "tolist", "__dlpack__", "untyped_storage", "data_ptr")
"""Functions that read values without an operation that the tracer sees."""


class _Operations(TorchDispatchMode):
    """Sees every ATen operation that runs."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: the compiler is not in use, so it need not be imported (4 s) to exclude this class."""
        return False

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracker = tracker

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tracker = self._tracker
        leaves = tree_leaves((args, kwargs))
        tracker.record.seen.update(name for leaf in leaves if (name := tracker.name(leaf)))
        if any(map(tracker.is_of_inputs, leaves)):
            tracker.depends_on_inputs(tree_leaves(out))
            tracker.reads_values |= func is torch.ops.aten._local_scalar_dense.default
        if tracker.paused:
            return out
        tracker.count(func, args, kwargs, out)
        name = func._schema.name.removeprefix("aten::")
        try:
            self._follow(func, name, args, kwargs, out)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            # an overload that its rule does not know: the channels of its arguments stay
            tracker.freeze_all(leaves, f"goes through {func.__name__}, which is not followed")
        for leaf in leaves:
            tracker.freeze_odd_use(leaf, name)
        return out

    def _follow(
        self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Any
    ) -> None:
        tracker = self._tracker
        changes = func._schema.is_mutable
        plain = name.removesuffix("_") if changes else name
        if (rule := RULES.get(plain)) is not None and (not changes or plain in CHANGES_IN_PLACE):
            rule(tracker, func, args, kwargs, out)
        elif _is_pointwise(func, plain):
            follow_pointwise(tracker, func, args, kwargs, out)
        else:
            tracker.freeze_all((args, kwargs), f"goes through {name}, which is not followed")
            if changes:
                tracker.forget((args, kwargs))


def _is_pointwise(func: Any, plain: str) -> bool:
    """Whether every entry of the result depends on the inputs' same entries alone.

    torch 2.6 does not tag all in-place forms as ``pointwise``, hence ``plain``, the name without ``_``.
    """
    if torch.Tag.pointwise in func.tags or plain in ("_prelu_kernel", "hardswish"):
        return True
    other = getattr(getattr(torch.ops.aten, plain, None), func._overloadname, None)
    return other is not None and torch.Tag.pointwise in other.tags


def _described(inputs: Sequence[object]) -> str:
    return ", ".join(
        f"{tuple(i.shape)} {i.dtype} on {i.device}" if isinstance(i, Tensor) else type(i).__name__
        for i in inputs
    )
