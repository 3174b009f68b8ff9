"""The notes on weights that stay dense without having been excluded.

No pattern names those of attention, recurrent and embedding modules, and bare parameters: without ``include`` only
convolution and linear modules are pruned. Others a set of a fixed structure, such as n:m, cannot hold.
"""

import weakref
from collections.abc import Mapping

from torch import nn

from detprune.errors import listed
from detprune.loggers import logger

LOGGER = logger(__name__)

_NOTABLE = 0.05
"""Share of the weights (in tensors of two or more dimensions) from which a note is worth it; position embeddings and
scales have less."""

_MOST = 12  # names that a note lists for one reason

_TOLD: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Models with a note already, because a run selects the weights of one model several times."""

_TOLD_UNFIT: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""The same for the note on weights that a set cannot hold."""


def tell_left_out(
    model: nn.Module,
    parameters: Mapping[str, tuple[nn.Parameter, nn.Module]],
    left: set[str],
) -> None:
    """Log once per model which share of its weights stays dense, if it is notable, and how to include them.

    Args:
        model: the network.
        parameters: all its parameters of two or more dimensions, with their modules, by name.
        left: names of the parameters that were neither chosen nor excluded.
    """
    sizes = {
        name: parameter.numel()
        for name, (parameter, _) in parameters.items()
        if name in left and parameter.requires_grad
    }
    share = sum(sizes.values()) / max(1, sum(p.numel() for p, _ in parameters.values()))
    if share < _NOTABLE or model in _TOLD:
        return
    _TOLD.add(model)
    names = sorted(sizes, key=lambda name: -sizes[name])
    modules = sorted({type(parameters[name][1]).__name__ for name in names})
    patterns = dict.fromkeys(["*weight", *("*" + name.rpartition(".")[2] for name in names)])
    LOGGER.warning(
        "%.0f%% of the weights stay dense (%s, of %s): without include only convolution and linear modules are "
        "pruned. To prune them too, name all weights to be pruned, for example include=%r; with exclude=[…] they "
        "stay dense without this line",
        100 * share,
        listed(names),
        ", ".join(modules),
        list(patterns),
    )


def tell_unfit(model: nn.Module, sparsity_set: object, reasons: Mapping[str, str]) -> None:
    """Log once per model which weights a set cannot hold, so that they stay dense, by their reason.

    Args:
        model: the network.
        sparsity_set: the set.
        reasons: name of a weight → why the set cannot hold it.
    """
    if not reasons or model in _TOLD_UNFIT:
        return
    _TOLD_UNFIT.add(model)
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    LOGGER.warning(
        "%d weight(s) stay dense, because %r cannot hold them; with exclude=[…] they stay dense without this "
        "line:\n  %s",
        len(reasons),
        sparsity_set,
        "\n  ".join(f"{listed(found, _MOST)}: {why}" for why, found in names.items()),
    )
