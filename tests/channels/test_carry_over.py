"""Training goes on with the small network as masked training of the large one would have."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from channel_checks import Net
from torch import Tensor, nn

from detprune import ADMM, Budget, CoupledChannels, InputError, OneShot, Pruner

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "momentum, foreach": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=True),
    "momentum, fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW, foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
}


def network() -> nn.Module:
    """A residual, a gate, a depthwise layer and a linear head."""
    return Net(
        lambda m, x: m.head(
            (
                m.dw((y := m.n(m.a(x)).relu() + 0)) * m.gate(y.mean((2, 3), keepdim=True)).sigmoid()
            ).flatten(1)
        ),
        a=nn.Conv2d(3, 8, 1),
        n=nn.BatchNorm2d(8),
        dw=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        gate=nn.Conv2d(8, 8, 1),
        head=nn.Linear(8 * 16, 3),
    ).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(3, (8,), generator=generator)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    images, labels = batch(seed)
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def hard_pruned(
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    model = network()
    optimizer = make(model.parameters())
    channels = CoupledChannels(batch(0)[0], round_to=1)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), channels, Budget(sparsity=0.5))
    for seed in range(6):
        step(model, optimizer, seed)
        if seed % 3 == 2:
            pruner.update()
    pruner.hard_prune()
    return model, optimizer, pruner


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_masked_and_small_training_agree(
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
) -> None:
    model, optimizer, pruner = hard_pruned(make)
    small = pruner.shrink()
    new = make(small.parameters())
    pruner.carry_over(new, small)
    for seed in range(10, 14):
        one, other = step(model, optimizer, seed), step(small, new, seed)
        assert one == pytest.approx(other, rel=1e-9)
    after: Any = pruner.shrink()
    for name, parameter in small.named_parameters():
        expected = after.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-7, atol=1e-10)
    for name, buffer in small.named_buffers():
        torch.testing.assert_close(buffer, after.get_buffer(name))


def test_states_are_copies() -> None:
    model, optimizer, pruner = hard_pruned(OPTIMIZERS["AdamW"])
    small = pruner.shrink()
    new = OPTIMIZERS["AdamW"](small.parameters())
    pruner.carry_over(new, small)
    before = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    step(small, new, 0)
    for name, parameter in model.named_parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], before[name])


def test_a_part_of_the_parameters_may_be_trained() -> None:
    _, _, pruner = hard_pruned(OPTIMIZERS["momentum"])
    small: Any = pruner.shrink()
    new = OPTIMIZERS["momentum"](small.head.parameters())
    pruner.carry_over(new, small)
    assert set(new.state) == set(small.head.parameters())


def test_what_cannot_be_carried_over_is_said() -> None:
    model, _, pruner = hard_pruned(OPTIMIZERS["momentum"])
    small = pruner.shrink()
    for optimizer, to, text in (
        (OPTIMIZERS["AdamW"](small.parameters()), small, "state of SGD cannot be .* to AdamW"),
        (OPTIMIZERS["SGD"](model.parameters()), small, "holds no parameter of the small network"),
        (
            OPTIMIZERS["SGD"](model.parameters()),
            model,
            "do not have the shapes of the shrunk network",
        ),
        (
            OPTIMIZERS["SGD"](small.parameters()),
            nn.Linear(2, 2),
            "weight, bias do not have the shapes of the shrunk network",
        ),
    ):
        with pytest.raises(InputError, match=text):
            pruner.carry_over(optimizer, to)
    free = Pruner(
        network(), None, OneShot(), CoupledChannels(batch(0)[0], round_to=1), Budget(macs=0.5)
    )
    free.hard_prune()
    with pytest.raises(InputError, match=r"needs the optimizer that trained the network; att"):
        free.carry_over(OPTIMIZERS["SGD"](small.parameters()), small)


def test_states_of_other_shapes_are_refused() -> None:
    make = lambda p: torch.optim.Adafactor(p, lr=0.01)  # noqa: E731
    _, _, pruner = hard_pruned(make)
    small = pruner.shrink()
    with pytest.raises(
        InputError, match=r"the optimizer's \w+_var of \S+ has the shape .* start with a"
    ):
        pruner.carry_over(make(small.parameters()), small)
