"""The user's own network inside the wrappers of trainers."""

from torch import nn
from torch.nn.parameter import UninitializedParameter

from detprune.errors import InputError, listed

SHARDED = (
    "which leaves every process a part of each weight, and whole tensors are pruned; train in "
    "DistributedDataParallel, or prune the unsharded network"
)
"""End of messages about weights that are sharded over several devices."""


def check_initialized(model: nn.Module) -> None:
    """Refuse lazy modules that have not run yet, so that their weights have no shape.

    Raises:
        InputError: they are named.
    """
    lazy = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if isinstance(parameter, UninitializedParameter)
    ]
    if lazy:
        raise InputError(
            f"the shapes of {listed(lazy)} are not known yet (lazy modules); run one batch through the model "
            "before the pruner and the optimizer are made"
        )


def unwrap(model: object) -> nn.Module:
    """The user's own model inside DistributedDataParallel, DataParallel, torch.compile or Lightning Fabric.

    Raises:
        InputError: something else than a module, or one whose weights are sharded by FSDP.
    """
    while True:
        if not isinstance(model, nn.Module):
            kind = (
                f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            )
            raise InputError(f"the model is {kind}; pass a torch.nn.Module")
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif type(model).__name__ == "_FabricModule":
            model = model._original_module
        elif any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules()):
            raise InputError(f"the model is wrapped in FullyShardedDataParallel, {SHARDED}")
        else:
            return model
