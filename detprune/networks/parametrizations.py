"""Weights that a module computes from other parameters (parametrizations). They are no parameters, so that no pruner
can hold zeros in them. Zeros in the parameters that they are computed from may be nonzero in the weight, or NaN (a
weight norm divides by the norm of a filter).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize, prune


@dataclass(frozen=True)
class Computed:
    """A weight that is computed at every forward.

    Attributes:
        name: name of the weight, as if it were a parameter.
        module: the module that owns it.
        what: the mechanism that computes it, such as a weight norm.
        remedy: the call that turns it into a parameter.
        parts: names of the parameters that it is computed from.
        keeps_zeros: whether a zero in its parameter is always a zero in the weight.
    """

    name: str
    module: nn.Module
    what: str
    remedy: str
    parts: tuple[str, ...]
    keeps_zeros: bool


_OLD_HOOKS = {  # PyTorch's older forward hooks → name, the call that removes them, suffixes of parameters
    "WeightNorm": ("weight norm", "torch.nn.utils.remove_weight_norm", ("_g", "_v")),
    "SpectralNorm": ("spectral norm", "torch.nn.utils.remove_spectral_norm", ("_orig",)),
}


def computed_weights(model: nn.Module) -> list[Computed]:
    """All weights of a model that are computed at every forward; this function computes none of them."""
    return [
        found for prefix, module in model.named_modules() for found in _of_module(module, prefix)
    ]


def _of_module(module: nn.Module, prefix: str) -> Iterator[Computed]:
    path = f"{prefix}." if prefix else ""
    shown = f"model.get_submodule({prefix!r})" if prefix else "model"
    if parametrize.is_parametrized(module):
        for tensor, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            kinds = ", ".join(type(entry).__name__.lstrip("_") for entry in chain)
            yield Computed(
                f"{path}{tensor}",
                module,
                f"a parametrization ({kinds})",
                f"torch.nn.utils.parametrize.remove_parametrizations({shown}, {tensor!r})",
                tuple(
                    f"{path}parametrizations.{tensor}.{name}"
                    for name, _ in chain.named_parameters(recurse=False)
                ),
                kinds == "SpectralNorm",
            )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            tensor = str(hook._tensor_name)
            yield Computed(
                f"{path}{tensor}",
                module,
                "a mask of torch.nn.utils.prune",
                f"torch.nn.utils.prune.remove({shown}, {tensor!r})",
                (f"{path}{tensor}_orig",),
                False,
            )
        elif type(hook).__module__.startswith("torch.nn.utils.") and (
            old := _OLD_HOOKS.get(type(hook).__name__)
        ):
            what, remove, suffixes = old
            tensor = str(getattr(hook, "name", "weight"))
            yield Computed(
                f"{path}{tensor}",
                module,
                what,
                f"{remove}({shown}, {tensor!r})",
                tuple(f"{path}{tensor}{suffix}" for suffix in suffixes),
                what == "spectral norm",
            )
