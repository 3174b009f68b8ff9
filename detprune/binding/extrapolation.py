"""Hooks for methods that take gradients at a point Ŵ other than W (SAS-ADMM, DPF): training forwards and
backwards see Ŵ, everything else sees W.

Traps handled here:
- Forward hooks are deep-copied into EMAs and pickled with whole models: copies must do nothing, and
  loading them must not need detprune.
- A weight may be used without its module's forward (``F.linear(x, module.weight)``, compiled graphs): then its
  gradient is taken at W. The next step detects this and raises an error.
- A second backward through the same forward (``retain_graph``) comes after W was restored: Ŵ is put back
  as soon as the gradient reaches the module's output, with the version number that autograd saved.
  Code that uses the weight without its module still gets autograd's error about a changed weight.
- A penalty on the weights may be computed before the forward, at W. Its gradient is taken at Ŵ, as that of one
  that is computed after it: the change to Ŵ leaves the version number that autograd saved.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from detprune.errors import InputError, listed
from detprune.layers import Layer

_LIVE: "weakref.WeakSet[ExtrapolatedWeights]" = weakref.WeakSet()


def refuse_if_extrapolated(weights: Sequence[Tensor]) -> None:
    """Refuse weights that another pruner's hooks swap on every forward."""
    wanted = {id(weight) for weight in weights}
    if any(id(weight) in wanted for other in _LIVE for weight in other.weights):
        raise InputError(
            "another pruner, with SASADMM or DPF, still moves these weights on every forward; call detach() on "
            "it first"
        )


class ExtrapolatedWeights:
    """Hooks that swap every weight between W and Ŵ.

    A weight is swapped when its own module runs forward in training mode with gradients on, and
    swapped back as soon as its gradient has been accumulated; an evaluation, a ``state_dict()`` or
    the next optimizer step find W even if no backward came.

    Args:
        model: the network.
        layers: its pruned weights.
        point: Ŵ of the weight with an index; the same between two calls of ``end_step``.
        method: the method's name, for errors.

    Raises:
        InputError: weights of a module that is known never to run forward.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        point: Callable[[int, Tensor], Tensor],
        method: str,
    ) -> None:
        uncalled = {
            id(part.out_proj) for part in model.modules() if isinstance(part, nn.MultiheadAttention)
        }
        if missed := [layer.name for layer in layers if id(layer.module) in uncalled]:
            raise InputError(
                f"{method} takes gradients at another point than the weights, by hooks on the modules' forward, but "
                f"nn.MultiheadAttention never calls {listed(missed)}: leave them dense, "
                f"exclude={missed!r}"
            )
        self.weights = [layer.weight for layer in layers]
        self.writes = [0] * len(layers)
        self._names = [layer.name for layer in layers]
        self._point, self._method = point, method
        self._backups = [torch.empty_like(weight.detach()) for weight in self.weights]
        self._swapped = [False] * len(layers)
        self._marks: list[Any] = [None] * len(layers)
        self._restored_at = [-1] * len(layers)
        self._accumulated = [False] * len(layers)
        self._at_w = [False] * len(layers)
        self._handles: list[RemovableHandle] = []
        for index, (layer, weight) in enumerate(zip(layers, self.weights, strict=True)):
            attribute = layer.name.rpartition(".")[2]
            self._handles += [
                layer.module.register_forward_pre_hook(_ForwardHook(self, index, attribute)),
                layer.module.register_forward_hook(_OutputHook(self, index)),
                self._watch_gradient(index, weight),
            ]
        for module in model.modules():
            self._handles.append(module.register_state_dict_pre_hook(_StateDictHook(self)))
        _LIVE.add(self)

    def _watch_gradient(self, index: int, weight: Tensor) -> RemovableHandle:
        """Note gradients of a weight, also of one that is frozen now and may be trained again later."""
        is_trained = weight.requires_grad
        weight.requires_grad_(True)  # torch registers this hook on no other tensor
        handle: RemovableHandle = weight.register_post_accumulate_grad_hook(
            lambda _: self._on_grad(index)
        )
        weight.requires_grad_(is_trained)
        return handle

    def remove(self) -> None:
        """Restore W and remove all hooks."""
        self.restore_all()
        for handle in self._handles:
            handle.remove()
        _LIVE.discard(self)

    @torch.no_grad()
    def swap(self, index: int) -> None:
        """Put Ŵ into the weight, unless it is there.

        The same Ŵ as before in this step gets the version number that it had: what autograd saved is valid.
        """
        if self._swapped[index]:
            return
        weight, mark = self.weights[index], self._marks[index]
        same = mark is not None and weight._version == self._restored_at[index]
        self._backups[index].copy_(weight)
        if same:
            weight.copy_(self._point(index, weight))
            mark.__exit__(None, None, None)
            self.writes[index] -= 1  # the restoration before this swap counted one
        else:
            with _unsafe_preserve_version_counter(weight):
                weight.copy_(self._point(index, weight))
            self._marks[index] = _unsafe_preserve_version_counter(weight)
        self._swapped[index] = True

    @torch.no_grad()
    def restore(self, index: int) -> None:
        """Put W back, unless it is there."""
        if self._swapped[index]:
            weight = self.weights[index]
            weight.copy_(self._backups[index])
            self.writes[index] += 1
            self._restored_at[index] = weight._version
            self._swapped[index] = False

    def restore_all(self) -> None:
        """Put every W back."""
        for index in range(len(self.weights)):
            self.restore(index)

    def forget(self) -> None:
        """Restore every W, and mark the values of Ŵ that autograd has saved as no longer valid."""
        self.restore_all()
        self._marks = [None] * len(self.weights)

    def end_step(self) -> None:
        """Put every W back before the optimizer's step.

        Raises:
            InputError: a gradient that was not taken at Ŵ.
        """
        missed = []
        for index, name in enumerate(self._names):
            self.restore(index)
            elsewhere = self._marks[index] is None or self._at_w[index]
            if elsewhere and (self._accumulated[index] or self._was_given(index)):
                missed.append(name)
            self._marks[index] = None
            self._accumulated[index] = self._at_w[index] = False
        if missed:
            raise InputError(
                f"{self._method} takes gradients at another point than the weights, by hooks on the modules' "
                f"forward, but these weights got a gradient without it: {listed(missed)}. Either "
                "their module is not called (out_proj of nn.MultiheadAttention, F.linear(x, module.weight)): "
                f"leave them dense, exclude={missed!r}; or the network was compiled before the pruner was made: "
                "make the pruner first; or it is checkpointed: use_reentrant=False; or it runs in eval mode or in "
                "DataParallel: use train(), DistributedDataParallel; or the gradient was put there by hand "
                "(torch.func.grad, a CUDA graph): call backward()"
            )

    def _was_given(self, index: int) -> bool:
        """Whether a gradient came by no backward; zeros are what ``zero_grad(set_to_none=False)`` left."""
        gradient = self.weights[index].grad
        return gradient is not None and bool(gradient.any())

    def swapped_weights(self) -> dict[int, Tensor]:
        """W of the weights that are at Ŵ now, by index; not copied."""
        return {i: backup for i, backup in enumerate(self._backups) if self._swapped[i]}

    def on_forward(self, index: int) -> None:
        """Swap to Ŵ for a training forward, unless a checkpoint recomputes a forward that ran at W."""
        if torch.compiler.is_compiling():
            self.swap(index)
        elif self._marks[index] is None and torch._C._current_graph_task_id() != -1:
            self._at_w[index] = (
                True  # reentrant checkpoint: its first forward ran without gradients, at W
            )
        else:
            self.swap(index)

    def on_output(self, index: int, output: Any) -> None:
        """Register hooks that swap to Ŵ when a gradient reaches the output, also in a second backward."""
        if self._swapped[index] and not torch.compiler.is_compiling():
            for tensor in tree_leaves(output):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda _: self._again(index))

    def _again(self, index: int) -> None:
        untouched = self.weights[index]._version == self._restored_at[index]
        if self._marks[index] is not None and untouched:
            self.swap(index)

    def _on_grad(self, index: int) -> None:
        self._accumulated[index] = True
        self.restore(index)


class _ForwardHook:
    """Swaps for training forwards; its copies and pickles are the method ``get`` of an empty
    dictionary, which, called as hook(module, arguments), returns the arguments unchanged."""

    def __init__(self, extrapolated: ExtrapolatedWeights, index: int, attribute: str) -> None:
        self._extrapolated, self._index, self._attribute = extrapolated, index, attribute

    def __call__(self, module: nn.Module, args: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            self._extrapolated.restore(self._index)
        elif torch.compiler.is_compiling() or self._has_our_weight(module):
            self._extrapolated.on_forward(self._index)

    def _has_our_weight(self, module: nn.Module) -> bool:
        """Whether the module holds the pruned weight; replicas of DataParallel do not, nor after a replacement."""
        return module._parameters.get(self._attribute) is self._extrapolated.weights[self._index]

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return {}.get

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, ({}, "get")


class _OutputHook:
    """Watches the module's output; its copies and pickles are the method ``__exit__`` of a
    ``nullcontext``, which takes hook(module, arguments, output) and has no effect."""

    def __init__(self, extrapolated: ExtrapolatedWeights, index: int) -> None:
        self._extrapolated, self._index = extrapolated, index

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self._extrapolated.on_output(self._index, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


class _StateDictHook:
    """Restores W for a ``state_dict()``; its copies and pickles are the builtin ``slice``, which takes
    hook(module, prefix, keep_vars) and has no effect."""

    def __init__(self, extrapolated: ExtrapolatedWeights) -> None:
        self._extrapolated = extrapolated

    def __call__(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._extrapolated.restore_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return slice

    def __reduce__(self) -> tuple[Any, ...]:
        return type, (slice(None),)
