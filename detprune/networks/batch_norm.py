"""New estimates of batch norm's running statistics, because hard pruning changes the activations that they describe."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_NORM_IMAGES = 256
"""Number of training images for the estimate in adapters, by default; they take seconds on a CPU."""


def statistics_layers(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network that keep running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and isinstance(module.running_mean, Tensor)
        and isinstance(module.running_var, Tensor)
    ]


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, batches: Iterable[Tensor], *, frozen: Iterable[nn.Module] = ()
) -> None:
    """Replace running means and variances by those of the batches; each batch has the same weight.

    As PyTorch's ``update_bn``, but in evaluation mode (dropout is off, as where the network is used), and
    a batch norm that the batches do not reach keeps its statistics. No parameter moves, no mode changes.

    Args:
        network: takes a batch, on its own device.
        batches: inputs; of more than one sample each where a batch norm sees one value a sample.
        frozen: batch norms that keep their statistics.
    """
    kept = {id(module) for module in frozen}
    layers = [layer for layer in statistics_layers(network) if id(layer) not in kept]
    if not layers:
        return
    with _taking_statistics(network, layers):
        for batch in batches:
            network(batch)


@contextmanager
def _taking_statistics(network: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Let these batch norms average over their inputs, with the rest of the network in evaluation mode."""
    modes = {module: module.training for module in network.modules()}
    momenta = [layer.momentum for layer in layers]
    before = [
        {name: value.clone() for name, value in layer.named_buffers(recurse=False)}
        for layer in layers
    ]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    done = False
    try:
        yield
        done = True
    finally:
        for layer, momentum, old in zip(layers, momenta, before, strict=True):
            layer.momentum = momentum
            seen = layer.num_batches_tracked
            if not done or (seen is not None and not int(seen)):
                for name, value in old.items():
                    layer.get_buffer(name).copy_(value)
        for module, training in modes.items():
            module.training = training


def even_batches(count: int, most: int) -> list[list[int]]:
    """The numbers below ``count`` in batches whose sizes differ by at most one, for equal weights in an estimate.

    Args:
        count: number of samples.
        most: most samples in a batch.
    """
    number = max(1, -(-count // most))
    bounds = [count * index // number for index in range(number + 1)]
    return [list(range(start, end)) for start, end in pairwise(bounds)]
