"""Lane networks are measured as they are deployed, on images of their one size."""

import pytest
import torch
from lane_networks import SIZE, network

import detprune_lanes.task  # noqa: F401  # says how they are deployed
from detprune import InputError
from detprune.run.measuring import deployed, measure_networks
from detprune.run.measuring.deployment import sized


def test_the_auxiliary_branch_is_left_out() -> None:
    with_aux = network(use_aux=True)
    found = measure_networks(with_aux, network(), (torch.zeros(1, 3, *SIZE),), rounds=3, seconds=0)
    assert found.dense is not None
    assert found.dense.macs == found.pruned.macs
    assert found.dense.parameters == found.pruned.parameters
    assert found.notes == ()
    assert with_aux.use_aux


def test_another_size_is_refused() -> None:
    own = deployed(network())
    assert sized(own, (torch.zeros(1, 3, *SIZE),), None, 2)[0].shape == (2, 3, *SIZE)
    with pytest.raises(InputError, match=r"only takes images of 64 × 96 pixels; leave --size out"):
        sized(own, (torch.zeros(1, 3, *SIZE),), 64, 1)
