"""An independent check that channels can be taken out: zero the masked weights, remove them, compare."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detprune import Budget, CoupledChannels, InputError, OneShot, Pruner
from detprune.channels import ChannelPlan
from detprune.channels.copying import copied
from detprune.channels.removal import removed
from detprune.channels.tracing import Forward
from detprune.projections import zero_outside

Plan = dict[str, tuple[int, int, str]]
"""By weight: how many channels it writes, how many of them can go, why the others stay."""


class Net(nn.Module):
    """Named layers, and a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


def randomise(model: nn.Module, seed: int = 1) -> None:
    """Values at which no branch is trivially zero: also γ, β, layer scales and batch-norm statistics."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(noise(parameter) * (2 / max(1, parameter[0].numel())) ** 0.5)
            else:
                parameter.copy_(0.7 + 0.3 * noise(parameter))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(0.5 * noise(buffer))
                if name.endswith("var"):
                    buffer.abs_().add_(0.3)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in an output, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in value:
            yield from tensors_in(value[key])
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif hasattr(value, "__dict__"):
        yield from tensors_in(vars(value))


def difference(one: Any, other: Any) -> float:
    """Largest difference of two outputs, relative to the largest entry."""
    pairs = list(zip(tensors_in(one), tensors_in(other), strict=True))
    assert pairs
    worst = 0.0
    for a, b in ((a.detach(), b.detach()) for a, b in pairs):
        assert a.shape == b.shape
        assert a.isfinite().all()
        if a.numel():
            scale = max(1e-12, float(a.abs().max()))
            worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


def costs_of(model: nn.Module, inputs: Any, forward: Forward | None) -> tuple[float, int]:
    """MACs of a run, and parameters."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (forward or call)(model, *inputs)
    return counter.get_total_flops() / 2, sum(p.numel() for p in model.parameters())


def call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


def check_removal(
    model: nn.Module,
    *inputs: Any,
    forward: Forward | None = None,
    budget: Budget | None = None,
    round_to: int = 1,
    tolerance: float = 1e-9,
    training: bool = True,
    fresh: Callable[[], Any] | None = None,
    exact_costs: bool = True,
) -> Plan:
    """Bind, choose other weights, zero and remove, compare outputs and costs; returns what can go."""
    options: dict[str, Any] = {"round_to": round_to} | ({"forward": forward} if forward else {})
    channels = CoupledChannels(inputs, **options)
    try:
        bound, record, costs = channels._bound(model, budget or Budget(sparsity=0.5))
    except InputError as error:
        if "no channel of this network can be removed" not in str(error):
            raise
        return {"": (0, 0, str(error))}
    randomise(model)
    for seed in (0, 1):
        zeroed = copied(model).eval()
        weights = dict(zeroed.named_parameters())
        values = [weights[name] for name in bound.names]
        norms = bound.squared_norms(values)
        if seed:
            norms = torch.rand(norms.shape, generator=torch.Generator().manual_seed(seed)).to(norms)
        chosen = bound.chosen(norms)
        for value, mask in zip(values, bound.spread(values, chosen), strict=True):
            zero_outside(value, mask)
        small = removed(zeroed, bound.kept_indices(chosen))
        assert sum(p.numel() for p in small.parameters()) < sum(
            p.numel() for p in model.parameters()
        )
        others = fresh() if fresh else tuple(_other(value) for value in inputs)
        modes = (False, True) if training else (False,)
        for mode in modes:
            outputs = []
            for network in (zeroed, small):
                torch.manual_seed(3)
                with torch.no_grad():
                    outputs.append((forward or call)(network.train(mode), *copy.deepcopy(others)))
            worst = difference(*outputs)
            assert worst <= tolerance, f"outputs differ by {worst:.2g} (training mode: {mode})"
    if exact_costs:
        dense = costs_of(model.eval(), inputs, forward)
        left = costs_of(small.eval(), inputs, forward)
        assert round(float(costs.macs(costs.sizes)), 3) == dense[0]
        assert round(float(costs.macs(bound.counts)), 3) == left[0]
        assert round(float(costs.parameters(costs.sizes)), 3) == dense[1]
        assert round(float(costs.parameters(bound.counts)), 3) == left[1]
    return {
        layer.name: (
            layer.channels,
            layer.removable,
            "; ".join(reason for reason, _ in layer.reasons),
        )
        for layer in ChannelPlan.of(bound, record, costs).layers
    }


def removed_at(model: nn.Module, inputs: Any, budget: Budget, round_to: int) -> nn.Module:
    """The network after one-shot removal at a budget."""
    channels = CoupledChannels(inputs, round_to=round_to)
    pruner = Pruner(model, None, OneShot(), channels, budget)
    pruner.hard_prune()
    return pruner.shrink().eval()


def _other(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn_like(value) * 1.3
    return value
