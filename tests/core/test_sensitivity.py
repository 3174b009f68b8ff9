"""The scan of layers and the cheapest plan."""

import itertools

import numpy as np
import pytest
import torch

from core_models import batches, loss_of, small_net, snapshot
from detprune import NM, Budget, InputError, Unstructured
from detprune.layers import select_layers
from detprune.sensitivity import SPARSITIES, Scan, scan

STEPS = np.diff(SPARSITIES)  # slopes that rise: convex in the weights kept
NUMELS = {"a": 1000, "b": 4000, "c": 20_000}


def made_up(seed: int = 0) -> Scan:
    generator = np.random.default_rng(seed)
    increases = {
        name: np.concatenate([[0.0], np.cumsum(np.sort(generator.exponential(size=11)) * STEPS)])
        for name in NUMELS
    }
    return Scan(0.5, increases, NUMELS)


def density(plan: dict[str, float]) -> float:
    return sum((1 - s) * NUMELS[name] for name, s in plan.items()) / sum(NUMELS.values())


def test_a_scan_prunes_each_layer_alone_and_puts_it_back() -> None:
    model = small_net().eval()
    batch = batches(1)[0]
    layers = select_layers(model, Unstructured(), Budget(sparsity=0.5), None)
    before = snapshot(model)

    def loss() -> float:
        return float(loss_of(model, batch).detach())

    found = scan(layers, Unstructured(), loss)
    for name, value in snapshot(model).items():
        assert torch.equal(value, before[name]), name
    assert found.loss == loss()
    assert found.numels == {layer.name: layer.weight.numel() for layer in layers}
    for layer in layers:
        rises = [0.0]
        for sparsity in SPARSITIES[1:]:
            with torch.no_grad():
                weight = before[layer.name]
                order = weight.abs().flatten().sort(descending=True, stable=True).indices
                kept = torch.zeros_like(weight.flatten())
                count = max(1, round((1 - sparsity) * weight.numel()))
                kept[order[:count]] = weight.flatten()[order[:count]]
                layer.weight.copy_(kept.view_as(weight))
                rises.append(loss() - found.loss)
                layer.weight.copy_(weight)
        assert found.increases[layer.name] == pytest.approx(np.maximum.accumulate(rises), abs=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77, 0.9, 0.97, 0.998])
@pytest.mark.parametrize("seed", range(4))
def test_the_plan_meets_the_budget_and_none_of_the_tried_ones_is_cheaper(
    sparsity: float, seed: int
) -> None:
    found = made_up(seed)
    plan = found.cheapest(sparsity)
    assert density(plan) == pytest.approx(1 - sparsity, abs=1e-9)
    cost = found.predicted(plan)
    floor = (1 - sparsity) / 4
    assert all(1 - s >= floor for s in plan.values())
    for levels in itertools.product([s for s in SPARSITIES if 1 - s >= floor], repeat=3):
        other = dict(zip(NUMELS, levels, strict=True))
        if density(other) <= 1 - sparsity:
            assert found.predicted(other) >= cost - 1e-6


def test_predictions_are_linear_between_the_sparsities_tried() -> None:
    found = made_up()
    first, second = found.increases["a"][1:3]
    plan = {"a": 0.4, "b": 0.0, "c": 0.0}  # between 0.3 and 0.5
    assert found.predicted(plan) == pytest.approx(0.5 + (first + second) / 2)


def test_a_layer_whose_pruning_breaks_the_network_is_left_alone() -> None:
    found = made_up()
    broken = Scan(0.5, {**found.increases, "a": np.array([0.0] + [np.inf] * 11)}, NUMELS)
    assert broken.cheapest(0.5)["a"] == 0.0


def test_a_budget_is_not_overdone_where_pruning_costs_nothing() -> None:
    free = Scan(0.5, {name: np.zeros(len(SPARSITIES)) for name in NUMELS}, NUMELS)
    assert density(free.cheapest(0.6)) == pytest.approx(0.4)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"tried up to 0\.998 only; ask for a compression of at most 500"
    ):
        made_up().cheapest(0.999)
    with pytest.raises(InputError, match=r"NM\(n=2, m=4\) always has sparsity 0\.5"):
        scan([], NM(2, 4), lambda: 0.0)
