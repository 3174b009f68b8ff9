"""Small models and loops that the tests of the core share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune import (
    ADMM,
    DPF,
    SASADMM,
    SLR,
    Budget,
    GradualMagnitude,
    Magnitude,
    Method,
    OneShot,
    Pruner,
)

HALF = Budget(sparsity=0.5)
HALVES = {"0.weight": 36, "4.weight": 256, "6.weight": 12}
"""Zeros of ``small_net`` at this budget."""

METHOD_EXAMPLES: dict[str, Method] = {
    "admm": ADMM(rho=0.05),
    "slr": SLR(rho=0.05, step_size=0.02),
    "admm, free": ADMM(rho=0.05, free_support=True),
    "slr, free": SLR(rho=0.05, step_size=0.02, free_support=True),
    "admm, proximal": ADMM(rho=0.05, penalty="proximal"),
    "slr, proximal": SLR(rho=0.05, step_size=0.02, free_support=True, penalty="proximal"),
    "sas_admm": SASADMM(beta=0.05, nu=20.0, inner_steps=3, k0=2, average_from=2),
    "magnitude": Magnitude(),
    "gradual_magnitude": GradualMagnitude(ramp=0.0, every=2),
    "dpf": DPF(ramp=0.0, every=2),
    "oneshot": OneShot(),
}
"""Settings of every registered method; the contract suite checks that none is missing."""


def small_net(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """A convolution, a norm and two linear layers for 2×6×6 images and 3 classes."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.Tanh(),
        nn.Linear(8, 3),
    )
    torch.set_rng_state(generator_state)
    return model.to(dtype)


def batches(
    count: int, dtype: torch.dtype = torch.float32, size: int = 8, seed: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """Random images and labels, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 2, 6, 6, generator=generator).to(dtype),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def sgd(model: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.SGD:
    """SGD with momentum over all parameters."""
    return torch.optim.SGD(model.parameters(), lr=lr, **{"momentum": 0.9, **options})


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy in float32 or wider."""
    logits = model(batch[0])
    return nn.functional.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), batch[1]
    )


def train(
    model: nn.Module,
    optimizer: Optimizer,
    data: Sequence[tuple[Tensor, Tensor]],
    pruner: Pruner | None = None,
    update_every: int | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """The plain loop: forward, backward, step, observe, and update after every few steps."""
    for index, batch in enumerate(data, start=1):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        after_step()
        if pruner is not None:
            pruner.observe(loss)
            if update_every is not None and index % update_every == 0:
                pruner.update()


def pruned_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are pruned by default, by name, without copying them."""
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() >= 2}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers, taken without ``state_dict`` and its hooks."""
    everything = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in everything}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit-equal, name by name."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), f"{name} differs"


def zeros_in(weights: dict[str, Tensor]) -> dict[str, int]:
    """How many zeros every tensor has."""
    return {name: int((value == 0).sum()) for name, value in weights.items()}


def tensors_of(pruner: Pruner, kind: str) -> dict[str, Tensor]:
    """One kind of tensor of a method's state, by name, without copying it."""
    tensors: dict[str, Tensor] = pruner.state_dict()["state"]["tensors"][kind]
    return tensors


def scalars_of(pruner: Pruner) -> dict[str, float]:
    """The scalars of a method's state."""
    scalars: dict[str, float] = pruner.state_dict()["state"]["scalars"]
    return scalars
