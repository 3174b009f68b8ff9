"""Checks and counts of a network from which channels were removed, for the records of a run."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from detprune.channels import CoupledChannels
from detprune.errors import DetpruneError
from detprune.run.records import Removal, Size, StageResult
from detprune.run.task import Task
from detprune.summary import LayerSummary, Summary

_TOLERANCE = 1e-4  # relative, in float32; another order of sums gives some 1e-6


class RemovalError(DetpruneError):
    """The small network has other outputs than the network in which the removed channels are zero."""


def outputs_differ_by(zeroed: nn.Module, small: nn.Module, channels: CoupledChannels) -> float:
    """Largest difference of any output on random inputs of the example's shape, relative to the largest output.

    Raises:
        RemovalError: more than sums in another order can explain.
    """
    generator = torch.Generator().manual_seed(0)
    given = channels.inputs_for(zeroed)
    inputs = [
        torch.rand(value.shape, generator=generator).to(value)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for value in given
    ]
    modes = [(m, m.training) for network in (zeroed, small) for m in network.modules()]
    try:
        with torch.no_grad():
            expected = tree_leaves(channels.forward(zeroed.eval(), *inputs))
            found = tree_leaves(channels.forward(small.eval(), *inputs))
    finally:
        for module, training in modes:
            module.training = training
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            scale = max(float(one.abs().max()), 1e-6)
            worst = max(worst, float((one - other).abs().max()) / scale)
    if not worst <= _TOLERANCE:
        raise RemovalError(
            f"without its zero channels the network has other outputs: they differ by {worst:.2g}, relative to the "
            "largest. Nothing was saved; please report the network"
        )
    return worst


def macs(network: nn.Module, channels: CoupledChannels) -> int:
    """Multiply-accumulate operations on the example inputs."""
    training = network.training
    counted = count_macs(lambda: channels.forward(network.eval(), *channels.inputs_for(network)))
    network.train(training)
    return counted


def count_macs(call: Callable[[], object]) -> int:
    """Multiply-accumulate operations of a call."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which the counter does not know
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def shrunk_summary(dense: nn.Module, small: nn.Module) -> Summary:
    """Counts of a small network against the dense one; removed weights count as zero."""
    left = dict(small.named_parameters())
    rows, numel, nonzero = [], 0, 0
    for name, parameter in dense.named_parameters():
        kept = int(torch.count_nonzero(left[name]))
        numel += parameter.numel()
        nonzero += kept
        shrunk = left[name].numel() < parameter.numel()
        if parameter.dim() >= 2 or shrunk:
            target = 1 - left[name].numel() / parameter.numel() if shrunk else None
            shape = tuple(parameter.shape)
            rows.append(LayerSummary(name, shape, parameter.numel(), kept, target))
    return Summary(tuple(rows), numel, nonzero)


def removal_record(task: Task, dense: nn.Module, small: nn.Module, stage: StageResult) -> Removal:
    """Sizes before and after, and the difference of the outputs, as measured in the stage of the removal."""
    channels = task.sparsity_set(dense)
    if not isinstance(channels, CoupledChannels):
        raise TypeError("the set removes no channels")
    if stage.difference is None:
        raise TypeError("the stage has removed no channels")
    before, after = (
        Size(macs=macs(n, channels), parameters=_parameters(n)) for n in (dense, small)
    )
    return Removal(dense=before, small=after, difference=stage.difference)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
