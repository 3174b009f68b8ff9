"""Tiny networks that return their results packed in odd ways; see ``odd_parts.py``."""

import dataclasses
from collections import OrderedDict, UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from channel_checks import Net
from odd_parts import BOTH, Case, Made, network
from torch import Tensor


def returning(pack: Callable[[Tensor, Tensor], Any]) -> Callable[[], Made]:
    """Returns the final result and what ``a`` writes, packed."""

    def run(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        return pack(m.c(m.b(h.relu()).relu()), h)

    return network(run)


@dataclasses.dataclass
class Output:
    result: Tensor
    features: Tensor


@dataclasses.dataclass(slots=True)
class Slotted:
    result: Tensor
    features: Tensor


class Named(NamedTuple):
    result: Tensor
    features: Tensor


class Mine(dict[str, Tensor]):
    pass


class Lists(list[Tensor]):
    pass


A_STAYS = {"a.weight": "is an output of the network", "b.weight": None}

CASES: dict[str, Case] = {
    "returns a tuple": (returning(lambda y, h: (y, h)), A_STAYS),
    "returns nested lists": (returning(lambda y, h: [y, [{"h": (h,)}]]), A_STAYS),
    "returns a dict": (returning(lambda y, h: {"y": y, "h": h}), A_STAYS),
    "returns an OrderedDict": (returning(lambda y, h: OrderedDict(y=y, h=h)), A_STAYS),
    "returns a UserDict": (returning(lambda y, h: UserDict(y=y, h=h)), A_STAYS),
    "returns a dict of its own": (returning(lambda y, h: Mine(y=y, h=h)), A_STAYS),
    "returns a list of its own": (returning(lambda y, h: Lists([y, h])), A_STAYS),
    "returns a dataclass": (returning(Output), A_STAYS),
    "returns slots": (returning(Slotted), A_STAYS),
    "returns a named tuple": (returning(Named), A_STAYS),
    "returns a namespace": (returning(lambda y, h: SimpleNamespace(y=y, h=[h])), A_STAYS),
    "returns a view": (returning(lambda y, h: (y, h.flatten(1))), A_STAYS),
    "returns a sum over channels": (
        returning(lambda y, h: (y, h.sum(1))),
        {"a.weight": "across channels", "b.weight": None},
    ),
    "returns None as well": (returning(lambda y, h: (y, None, 3, "text")), BOTH),
}
