"""The note on weights that stay dense because no pattern names them: those of attention, recurrent and embedding
modules, and bare parameters. Without ``include`` only convolution and linear modules are pruned.
"""

import weakref
from collections.abc import Mapping

from torch import nn

from detprune.budgets import Budget, matches
from detprune.errors import listed
from detprune.loggers import logger

LOGGER = logger(__name__)

_NOTABLE = 0.05
"""Share of the weights (in tensors of two or more dimensions) from which a note is worth it; position embeddings and
scales have less."""

_TOLD: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Models with a note already, because a run selects the weights of one model several times."""


def tell_left_out(
    model: nn.Module,
    parameters: Mapping[str, tuple[nn.Parameter, nn.Module]],
    left: set[str],
    budget: Budget,
) -> None:
    """Log once per model which share of its weights stays dense, if it is notable, and how to include them.

    Args:
        model: the network.
        parameters: all its parameters of two or more dimensions, with their modules, by name.
        left: names of the parameters that were not chosen.
        budget: the budget; weights that it excludes stay dense on purpose.
    """
    sizes = {
        name: parameter.numel()
        for name, (parameter, _) in parameters.items()
        if name in left
        and parameter.requires_grad
        and not any(matches(name, pattern) for pattern in budget.exclude)
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
