"""Well-known networks: removal changes nothing, costs are as predicted, budgets are met from below."""

from typing import Any

import pytest
import torch
from channel_checks import check_removal, costs_of, removed_at
from network_zoo import NETWORKS, REMOVABLE

from detprune import Budget, CoupledChannels

pytestmark = pytest.mark.slow

every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_removal_is_exact_and_costs_are_as_predicted(name: str) -> None:
    model, image = NETWORKS[name]()
    plan = check_removal(
        model, image, budget=Budget(macs=0.5), round_to=2, tolerance=1e-4, training=False
    )
    channels = sum(channels for channels, _, _ in plan.values())
    removable = sum(removable for _, removable, _ in plan.values())
    assert removable >= REMOVABLE.get(name, 0.95) * channels


@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs=0.3, allocation="global"),
        Budget(parameters=0.4),
        Budget(parameters=0.6, allocation="global"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v3_small", "densenet121", "regnet_y_400mf"]
)
def test_budgets_are_met_from_below(name: str, budget: Budget) -> None:
    model, image = NETWORKS[name]()
    small = removed_at(model, image, budget, round_to=2)
    dense, left = costs_of(model.eval(), (image,), None), costs_of(small, (image,), None)
    share = budget.macs or budget.parameters or 0.0
    reached = left[0] / dense[0] if budget.macs else left[1] / dense[1]
    assert 0.9 * share <= reached <= share


@pytest.mark.parametrize("round_to", [4, 8, 16])
@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_widths_are_multiples(name: str, round_to: int) -> None:
    model, image = NETWORKS[name]()
    plan = CoupledChannels(image, round_to=round_to).plan(model, Budget(macs=0.5))
    kept: dict[str, Any] = {layer.name: layer.kept for layer in plan.layers if layer.removable}
    assert all(width % round_to == 0 for width in kept.values())
    assert 0.45 <= plan.macs_left / plan.macs <= 0.5


@pytest.mark.parametrize("inputs_too", [False, True])
@pytest.mark.parametrize(
    "name", ["alexnet", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf"]
)
def test_the_same_channels_go_in_the_channels_last_memory_format(
    name: str, inputs_too: bool
) -> None:
    model, image = NETWORKS[name]()
    plain = CoupledChannels(image).bind(model, Budget(sparsity=0.5))
    model.to(memory_format=torch.channels_last)
    if inputs_too:
        image = image.to(memory_format=torch.channels_last)
    bound = CoupledChannels(image).bind(model, Budget(sparsity=0.5))
    assert bound.names == plain.names
    assert bound.counts.tolist() == plain.counts.tolist()
