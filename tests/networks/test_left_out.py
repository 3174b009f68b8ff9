"""Weights that nobody named are spoken of, and can be pruned once they are named, by every method."""

import ast
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core_models import METHOD_EXAMPLES, small_net
from detprune import ADMM, Budget, Method, Pruner


class Attention(nn.Module):
    """Attention, whose projection of the inputs is one bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))
        return logits


class Recurrent(nn.Module):
    """A recurrent network of two layers and both directions."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.recurrent = kind(8, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.recurrent(x)[0][:, -1])
        return logits


class Bare(nn.Module):
    """A parameter of the network itself, an embedding and a bilinear module."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 8) / 3)
        self.embedding = nn.Embedding(5, 8)
        self.mixed = nn.Bilinear(8, 8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        told = self.embedding((x[..., 0] > 0).long())
        logits: Tensor = self.head(self.mixed(x @ self.matrix, told).mean(1))
        return logits


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    "attention": (Attention, ["attention.in_proj_weight"], ["*in_proj_weight"]),
    "lstm": (lambda: Recurrent(nn.LSTM), [], ["*weight_?h_l*"]),
    "gru": (lambda: Recurrent(nn.GRU), [], ["*weight_?h_l*"]),
    "bare": (Bare, ["mixed.weight", "matrix"], ["matrix", "embedding", "mixed"]),
}


def made(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name][0]()


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_nobody_named_are_told_of_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = made(name)
    for _ in range(2):
        pruner = Pruner(model, None, ADMM(rho=0.1), budget=Budget(sparsity=0.5))
    (line,) = [record.getMessage() for record in caplog.records]
    rows = {row.name: row.numel for row in pruner.summary().layers if row.target is None}
    assert (
        f"{100 * sum(rows.values()) / sum(r.numel for r in pruner.summary().layers):.0f}%" in line
    )
    assert all(part in line for part in NETWORKS[name][1])
    include = ast.literal_eval(line.partition("include=")[2].partition(";")[0])
    everything = Pruner(model, None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, include=include))
    assert all(row.target is not None for row in everything.summary().layers)
    assert len(caplog.records) == 1
    Pruner(made(name), None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, exclude=list(rows)))
    assert len(caplog.records) == 1


def transformer_with_positions() -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))
    model.register_parameter("positions", nn.Parameter(torch.zeros(1, 3, 64)))
    return model


def frozen_embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 8).requires_grad_(False), nn.Linear(8, 8))


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 8))


@pytest.mark.parametrize("make", [small_net, transformer_with_positions, frozen_embedding])
def test_ordinary_networks_are_not_spoken_of(
    make: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    Pruner(make(), None, ADMM(rho=0.1), budget=Budget(sparsity=0.5))
    assert not caplog.records


def test_what_is_excluded_under_its_computed_name_is_left_out_on_purpose(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Pruner(spectral(), None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, exclude=["0.weight"]))
    assert not caplog.records


@pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_prunes_them_once_they_are_named(name: str, method: Method) -> None:
    model = made(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    budget = Budget(sparsity=0.5, include=NETWORKS[name][2])
    pruner = Pruner(model, optimizer, method, budget=budget)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 9):
        if step == 7:
            pruner.hard_prune()
        x = torch.randn(6, 4, 8, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), torch.arange(6) % 3)
        loss.backward()
        optimizer.step()
        pruner.observe(loss)
        if step in (3, 6):
            pruner.update()
    assert pruner.summary().sparsity == pytest.approx(0.5)
    assert torch.isfinite(loss)


def test_a_weight_that_is_excluded_by_its_second_name_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = small_net()
    name, layer = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    net.stem = layer
    pruner = Pruner(net, None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, exclude=["stem"]))
    assert f"{name}.weight" not in [layer.name for layer in pruner.layers]
    assert "stay dense" not in caplog.text
