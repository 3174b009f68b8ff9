"""Networks with NaN or infinities are named by what is wrong in them."""

import math

import pytest
import torch
from torch import nn

from core_models import small_net
from detprune import NonFiniteError
from detprune.networks.finite import check_finite


def poisoned(name: str, value: float) -> nn.Module:
    model = small_net()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        tensors[name].view(-1)[-1] = value
    return model


@pytest.mark.parametrize(
    "name", ["0.weight", "4.bias", "1.weight", "1.running_mean", "1.running_var"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_parameters_and_statistics_are_named(name: str, value: float) -> None:
    with pytest.raises(NonFiniteError, match=rf"the network after it holds .* in {name}: training"):
        check_finite(poisoned(name, value), "the network after it")


def test_a_healthy_network_passes_whatever_it_is_made_of() -> None:
    check_finite(small_net(), "it")
    check_finite(small_net(torch.bfloat16), "it")
    check_finite(nn.Identity(), "it")
    model = small_net()
    model.register_buffer("empty", torch.empty(0))
    model.register_buffer("attention_mask", torch.full((2, 2), -math.inf))
    model.register_buffer("indices", torch.arange(3))
    model.register_parameter("complex", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    check_finite(model, "it")
    with torch.device("meta"):
        check_finite(nn.Linear(2, 2), "it")


def test_a_mask_may_be_infinite_but_not_nan() -> None:
    model = small_net()
    model.register_buffer("attention_mask", torch.tensor([-math.inf, math.nan]))
    with pytest.raises(NonFiniteError, match=r"in attention_mask: training has diverged"):
        check_finite(model, "it")


def test_many_names_are_cut() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(
        NonFiniteError, match=r"0\.weight, 0\.bias, 1\.weight, 1\.bias, 2\.weight and 3 more:"
    ):
        check_finite(model, "it")
