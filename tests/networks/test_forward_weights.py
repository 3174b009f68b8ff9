"""Layers whose own forward changes the weight before it is used."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detprune import ADMM, Budget, CoupledChannels, Filter, InputError, Pruner, Unstructured
from detprune.networks.forward_weights import has_own_forward, loses_zeros


class StdConv2d(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019), as in timm."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class StdByMethod(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class CenteredLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, weight=self.weight - self.weight.mean(), bias=self.bias)


class SameConv2d(nn.Conv2d):
    """Pads as TensorFlow does, and leaves the weight alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class ScaledLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 0.5 * self.weight, self.bias)


class OddLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("takes no zeros")


def net(conv: type[nn.Conv2d]) -> nn.Sequential:
    return nn.Sequential(
        conv(2, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)
    )


def bound(model: nn.Module, **budget: object) -> Pruner:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Pruner(model, optimizer, ADMM(rho=0.1), budget=Budget(sparsity=0.5, **budget))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layer",
    [StdConv2d(2, 4, 3, stride=2), StdByMethod(2, 4, 3), CenteredLinear(6, 4)],
    ids=lambda layer: type(layer).__name__,
)
def test_zeros_that_are_none_where_the_weight_is_used(layer: nn.Conv2d | nn.Linear) -> None:
    before = layer.weight.detach().clone()
    random = torch.get_rng_state()
    assert has_own_forward(layer)
    assert loses_zeros(layer, Unstructured().project(layer.weight.detach(), 0.5))
    assert torch.equal(layer.weight, before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    "layer",
    [SameConv2d(2, 4, 3), ScaledLinear(6, 4), OddLinear(6, 4)],
    ids=lambda layer: type(layer).__name__,
)
def test_zeros_that_stay(layer: nn.Conv2d | nn.Linear) -> None:
    assert has_own_forward(layer)
    assert not loses_zeros(layer, Unstructured().project(layer.weight.detach(), 0.5))


def test_pytorchs_own_layers_are_not_looked_at() -> None:
    quantized = torch.ao.nn.qat.Linear(4, 4, qconfig=torch.ao.quantization.default_qat_qconfig)
    for layer in (nn.Linear(4, 4), nn.ConvTranspose2d(4, 4, 3), quantized, nn.BatchNorm2d(4)):
        assert not has_own_forward(layer)


def test_single_weights_of_a_standardised_layer_are_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"changed by StdConv2d.forward .*\n.*exclude=\['0.weight'\]"
    ):
        bound(net(StdConv2d))
    assert bound(net(StdConv2d), exclude=["0.weight"]).summary() is not None
    bound(net(SameConv2d))


def test_whole_filters_of_a_standardised_layer_stay_zero() -> None:
    model = net(StdConv2d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Pruner(model, optimizer, ADMM(rho=0.1), Filter(), Budget(sparsity=0.5)).hard_prune()
    layer = model[0]
    assert isinstance(layer, StdConv2d)
    empty = (layer.weight == 0).flatten(1).all(1)
    assert int(empty.sum()) == 16
    with torch.no_grad():
        out = layer(torch.randn(1, 2, 6, 6)) - layer.bias.view(-1, 1, 1)
    assert bool((out[0, empty] == 0).all())


def test_layers_that_keep_their_channels_are_told(caplog: pytest.LogCaptureFixture) -> None:
    channels = CoupledChannels(torch.zeros(1, 2, 6, 6))
    with caplog.at_level(logging.WARNING, "detprune"):
        channels.plan(net(SameConv2d), Budget(sparsity=0.5))
        assert not caplog.records
        model = nn.Sequential(nn.Conv2d(2, 32, 1), nn.Conv2d(32, 2, 1), *net(StdConv2d))
        channels.plan(model, Budget(sparsity=0.2))
    assert "2.weight by StdConv2d.forward" in caplog.text
