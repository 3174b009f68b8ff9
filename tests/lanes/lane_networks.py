"""Small lane networks, and state dicts of large ones that take no memory."""

from typing import Any

import torch
from torch import Tensor

from detprune_lanes.grid import Grid
from detprune_lanes.network.model import LaneNetwork

GRID, SIZE = Grid(cells=10, rows=8), (64, 96)

State = dict[str, Tensor]


def network(use_aux: bool = False, **others: Any) -> LaneNetwork:
    return LaneNetwork(**{"grid": GRID, "size": SIZE, "use_aux": use_aux, **others})


def hollow(**others: Any) -> State:
    """Names and shapes of a network; each tensor is one zero, seen many times."""
    with torch.device("meta"):
        state = network(**others).state_dict()
    return {n: torch.zeros((), dtype=v.dtype).expand(v.shape) for n, v in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def assert_equal(state: State, expected: State, *, but: str = "-") -> None:
    """Bit by bit, for all expected names except those that begin with ``but``."""
    for name, value in expected.items():
        if not name.startswith(but):
            assert torch.equal(state[name], value), name
