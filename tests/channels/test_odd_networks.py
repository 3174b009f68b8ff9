"""Odd operations, layers and structures: what is removed changes no output, what would stays, and why is said.

Every network is in float64; it is bound at its first weights, and checked with other ones, in both modes.
"""

from collections.abc import Iterator

import odd_layers
import odd_networks
import odd_shapes
import odd_values
import odd_writes
import pytest
import torch
from channel_checks import check_removal
from odd_parts import Case

CASES: dict[str, Case] = {
    **odd_writes.CASES,
    **odd_values.CASES,
    **odd_shapes.CASES,
    **odd_layers.CASES,
    **odd_networks.CASES,
}


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_removal_is_exact_or_the_reason_is_said(case: Case) -> None:
    make, expected, *options = case
    model, inputs = make()
    plan = check_removal(model, *inputs, **(options[0] if options else {}))
    for weight, reason in expected.items():
        channels, removable, why = plan.get(weight) or plan[""]
        if reason is None:
            assert removable > 0, f"0 of {channels} channels of {weight} can go: {why}"
        else:
            assert removable < channels or not channels
            assert reason in why
