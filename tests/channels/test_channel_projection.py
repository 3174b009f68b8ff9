"""Properties of the projection onto coupled channels, against a plain reference and against enumeration."""

import itertools
import math
from collections.abc import Callable, Iterator

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from channel_checks import Net, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detprune import Budget, CoupledChannels
from detprune.channels import BoundChannels
from detprune.projections import keep

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def chain() -> nn.Module:
    """Two families of 4 and 3, with norm and biases."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.ReLU(),
        nn.Conv2d(3, 2, 1),
    )  # fmt: skip


def residual() -> nn.Module:
    """One family of 4 that two layers write, and one of 3."""
    return Net(
        lambda m, x: m.d((y := m.a(x)) + m.c(m.b(y).relu())),
        a=nn.Conv2d(2, 4, 1),
        b=nn.Conv2d(4, 3, 1),
        c=nn.Conv2d(3, 4, 1),
        d=nn.Conv2d(4, 2, 1),
    )


def chunked() -> nn.Module:
    """Two families of 4 that keep equally many."""
    return Net(
        lambda m, x: m.b(torch.cat([part.relu() for part in m.a(x).chunk(2, 1)], 1)),
        a=nn.Conv2d(2, 8, 1),
        b=nn.Conv2d(8, 2, 1),
    )


def flattened() -> nn.Module:
    """A family of 4 whose groups are read by four columns each, one of 5; a depthwise layer in the first."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=4), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip


NETWORKS = {
    "chain": chain, "residual": residual, "chunked": chunked, "flattened": flattened
}  # fmt: skip
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def bound_of(model: nn.Module, sparsity: float = 0.5) -> tuple[BoundChannels, list[Tensor]]:
    """The set, and the members' values."""
    image = torch.randn(1, 2, 2, 2, dtype=next(model.parameters()).dtype)
    bound = CoupledChannels(image, round_to=1).bind(model, Budget(sparsity=sparsity))
    weights = dict(model.named_parameters())
    return bound, [weights[name].detach() for name in bound.names]


def masks_of(bound: BoundChannels, values: list[Tensor]) -> list[Tensor]:
    return bound.masks(values, [0.0] * len(values), jointly=False)


def group_entries(bound: BoundChannels, values: list[Tensor], group: int) -> list[Tensor]:
    """What belongs to a group, one tensor a member."""
    entries = []
    for value, member in zip(values, bound.groups.members, strict=True):
        where = torch.from_numpy(np.flatnonzero(member.groups == group))
        entries.append(value.index_select(member.dim, where))
    return entries


def reference_kept(bound: BoundChannels, values: list[Tensor]) -> list[int]:
    """By sorting the norms of each family, lower numbers first among equals."""
    kept: list[int] = []
    for family, count in zip(bound.groups.families, bound.kept.tolist(), strict=True):
        norms = {
            group: sum(
                e.double().square().sum().item() for e in group_entries(bound, values, group)
            )
            for group in family.groups.tolist()
        }
        kept += sorted(sorted(norms), key=lambda group: -norms[group])[:count]
    return sorted(kept)


def kept_in(bound: BoundChannels, masks: list[Tensor]) -> list[int]:
    """Groups whose entries are all kept; the others are all left out."""
    kept = []
    for group in range(bound.groups.count):
        entries = group_entries(bound, masks, group)
        states = {bool(value) for entry in entries for value in entry.ravel().tolist()}
        assert len(states) == 1, "a group is kept in part"
        kept += [group] * states.pop()
    return kept


@every_network
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_exact_counts_whole_groups_and_at_least_one(
    make: Callable[[], nn.Module], sparsity: float
) -> None:
    model = make()
    bound, values = bound_of(model, sparsity)
    for weights in (values, [torch.zeros_like(v) for v in values], [v.sign() for v in values]):
        masks = masks_of(bound, weights)
        assert [m.shape for m in masks] == [v.shape for v in values]
        kept = kept_in(bound, masks)
        for family, count in zip(bound.groups.families, bound.kept.tolist(), strict=True):
            expected = max(1, math.floor((1 - sparsity) * len(family.groups) + 1e-9))
            assert np.isin(kept, family.groups).sum() == count == expected


@every_network
def test_idempotent_and_feasible_points_stay(make: Callable[[], nn.Module]) -> None:
    model = make()
    bound, values = bound_of(model)
    once = [keep(v, m) for v, m in zip(values, masks_of(bound, values), strict=True)]
    twice = [keep(v, m) for v, m in zip(once, masks_of(bound, once), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert not any(torch.signbit(v[v == 0]).any() for v in once)
    others = [torch.randn_like(v) for v in values]
    feasible = [v * m for v, m in zip(others, masks_of(bound, values), strict=True)]
    projected = [keep(v, m) for v, m in zip(feasible, masks_of(bound, feasible), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(projected, feasible, strict=True))


@every_network
def test_no_other_point_of_the_set_is_nearer(make: Callable[[], nn.Module]) -> None:
    model = make()
    for seed in range(3):
        randomise(model, seed)
        bound, values = bound_of(model)
        masks = masks_of(bound, values)
        own = sum((v * ~m).double().square().sum() for v, m in zip(values, masks, strict=True))
        distances = []
        for kept in supports(bound):
            distances.append(
                sum(
                    entry.double().square().sum().item()
                    for group in range(bound.groups.count)
                    if group not in kept
                    for entry in group_entries(bound, values, group)
                )
            )
        assert len(distances) > 10
        assert float(own) == pytest.approx(min(distances), rel=1e-6)


def supports(bound: BoundChannels) -> Iterator[set[int]]:
    """All choices of as many groups as each family keeps."""
    choices = [
        itertools.combinations(family.groups.tolist(), count)
        for family, count in zip(bound.groups.families, bound.kept.tolist(), strict=True)
    ]
    for chosen in itertools.product(*choices):
        yield {group for own in chosen for group in own}


@every_network
@settings(max_examples=20)
@given(data=st.data())
def test_ties_go_to_the_lowest_number_in_every_precision(
    make: Callable[[], nn.Module], data: st.DataObject
) -> None:
    torch.manual_seed(0)
    bound, values = bound_of(make())
    integers = [
        torch.from_numpy(
            data.draw(arrays.arrays(np.int8, tuple(v.shape), elements=st.integers(-1, 1)))
        )
        for v in values
    ]
    expected = reference_kept(bound, integers)
    for dtype in DTYPES:
        masks = masks_of(bound, [value.to(dtype) for value in integers])
        assert kept_in(bound, masks) == expected
    mixed = [v.to(DTYPES[i % 4]) for i, v in enumerate(integers)]
    assert kept_in(bound, masks_of(bound, mixed)) == expected


def test_parts_of_a_chunk_keep_equally_many_whatever_their_norms() -> None:
    model = chunked()
    with torch.no_grad():
        model.a.weight[:4] *= 100  # type: ignore[union-attr, index, operator]
    for sparsity in (0.25, 0.5, 0.75):
        bound, values = bound_of(model, sparsity)
        kept = masks_of(bound, values)[0].flatten(1).any(1)
        assert kept[:4].sum() == kept[4:].sum() == 4 - round(4 * sparsity)


@every_network
def test_a_permutation_of_equal_groups_changes_nothing(make: Callable[[], nn.Module]) -> None:
    """Groups of equal norm: what is kept is a matter of their numbers, not of their values."""
    bound, values = bound_of(make())
    signs = [torch.where(torch.rand_like(v) < 0.5, -1.0, 1.0) for v in values]
    ones = [torch.ones_like(v) for v in values]
    assert kept_in(bound, masks_of(bound, signs)) == kept_in(bound, masks_of(bound, ones))
    assert kept_in(bound, masks_of(bound, ones)) == reference_kept(bound, ones)


def test_layout_does_not_matter() -> None:
    bound, values = bound_of(residual())
    stored = [
        v.to(memory_format=torch.channels_last) if v.dim() == 4 else v.expand(2, -1).t()[:, 0]
        for v in values
    ]
    for one, other in zip(masks_of(bound, values), masks_of(bound, stored), strict=True):
        assert torch.equal(one, other)


@pytest.mark.cuda
@every_network
def test_the_same_on_cuda(make: Callable[[], nn.Module]) -> None:
    bound, values = bound_of(make())
    for weights in (values, [v.sign() for v in values]):
        expected = masks_of(bound, weights)
        found = masks_of(bound, [v.cuda() for v in weights])
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
