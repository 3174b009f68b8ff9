"""Finding channels leaves everything as it was: weights, buffers, modes, random numbers; and takes any network."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from channel_checks import Net, check_removal, difference
from torch import Tensor, nn

from detprune import Budget, CoupledChannels, OneShot, Pruner

HALF = Budget(macs=0.5)


class Averages(nn.Module):
    """Counts its calls in a buffer, keeps a mean of what it saw, and draws random numbers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(8))
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        self.last = (torch.rand(2), random.random(), np.random.rand())
        return x


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(16, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1),
        Averages(),
    )


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def test_nothing_of_the_network_changes() -> None:
    model = network().train()
    model[1].eval()
    model[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    calls: list[bool] = []
    model.register_forward_hook(lambda *_: calls.append(True))
    model(image()).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags = [(m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()]
    last = model[8].last
    pointers = [p.data_ptr() for p in model.parameters()]
    plan = CoupledChannels(image()).plan(model, Budget(macs=0.7))
    assert plan.macs_left < plan.macs
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)  # type: ignore[arg-type]
    assert flags == [
        (m.training, [p.requires_grad for p in m.parameters()]) for m in model.modules()
    ]
    assert model[8].last is last
    assert pointers == [p.data_ptr() for p in model.parameters()]
    assert calls, "the user's hooks ran"
    assert len(model._forward_hooks) == 1


def test_random_numbers_go_on_as_if_nothing_had_run() -> None:
    model, inputs = network().train(), image()

    def drawn(bind: bool) -> tuple[Any, ...]:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        if bind:
            CoupledChannels(inputs).bind(model, HALF)
        return torch.rand(3).tolist(), random.random(), float(np.random.rand())

    assert drawn(bind=True) == drawn(bind=False)


def test_example_inputs_are_left_alone() -> None:
    model = Net(
        lambda m, x: m.b(m.a(x.sub_(1)).relu()), a=nn.Conv2d(3, 16, 1), b=nn.Conv2d(16, 4, 1)
    )
    inputs = image()
    before = inputs.clone()
    CoupledChannels(inputs).bind(model, HALF)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    tolerance = 1e-9 if dtype is torch.float64 else 0.02
    model = nn.Sequential(*list(network())[:-1]).to(dtype)
    plan = check_removal(model, image().to(dtype), tolerance=tolerance, training=False)
    assert [removable for _, removable, _ in plan.values()] == [16, 16, 0]


def test_inputs_follow_the_precision_of_the_network() -> None:
    bound = CoupledChannels(image().double()).bind(network(), HALF)
    half = CoupledChannels(image()).bind(network().to(torch.bfloat16), HALF)
    assert bound.kept.tolist() == half.kept.tolist()


def test_wrapped_and_compiled_networks() -> None:
    plain = network()
    compiled = torch.compile(plain, backend="eager")
    expected = CoupledChannels(image()).bind(plain, HALF).kept.tolist()
    assert CoupledChannels(image()).bind(compiled, HALF).kept.tolist() == expected  # type: ignore[arg-type]
    assert CoupledChannels(image()).bind(nn.DataParallel(plain), HALF).kept.tolist() == expected
    inner = Net(
        lambda m, x: m.inner(x),
        inner=torch.compile(nn.Sequential(*list(plain)[:-1]), backend="eager"),
    )
    assert CoupledChannels(image()).bind(inner, HALF).kept.tolist() == expected


def test_a_network_that_holds_a_result_with_a_history() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        m.last = [m.a(x)]
        return m.c(m.b(m.last[0]).relu())

    model = Net(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 16, 1), c=nn.Conv2d(16, 4, 1))
    model(image()).sum().backward()
    pruner = Pruner(model, None, OneShot(), CoupledChannels(image()), Budget(macs=0.7))
    pruner.hard_prune()
    x = image()
    assert difference(model(x), pruner.shrink()(x)) < 1e-5


def test_the_small_network_keeps_classes_layout_modes_and_names() -> None:
    model = network().to(memory_format=torch.channels_last).train()
    model[1].eval()
    model[4].bias.requires_grad_(True)  # type: ignore[union-attr]
    pruner = Pruner(model, None, OneShot(), CoupledChannels(image()), HALF)
    pruner.hard_prune()
    small = pruner.shrink()
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert list(small.state_dict()) == list(model.state_dict())
    assert small[4].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    assert not small[4].weight.is_contiguous()  # type: ignore[index]
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            widths = (module.out_channels, module.in_channels)
            assert widths == tuple(module.weight.shape[:2])
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.num_features == len(module.running_mean) == len(module.weight)
    assert all(p.grad is None and p.is_leaf and p.requires_grad for p in small.parameters())


def test_shared_weights_and_buffers_stay_shared() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16),
        nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1),
    )  # fmt: skip
    model[9].weight = model[6].weight
    model[4].running_mean = model[1].running_mean
    pruner = Pruner(model, None, OneShot(), CoupledChannels(image()), HALF)
    pruner.hard_prune()
    small: Any = pruner.shrink()
    assert small[9].weight is small[6].weight
    assert small[9].in_channels == small[6].in_channels == small[6].weight.shape[1] < 16
    assert small[4].running_mean is small[1].running_mean
    x = image()
    assert difference(model.eval()(x), small.eval()(x)) < 1e-5
