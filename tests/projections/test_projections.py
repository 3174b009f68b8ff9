"""Properties of the projection onto every sparsity set, against sorting and against enumeration."""

import math
import re

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_reference import (
    CASES,
    all_supports,
    first_largest,
    group_ids,
    group_scores,
    promised,
    promised_kernels,
    reference_mask,
)
from detprune import NM, Block, Column, Filter, InputError, Pattern, SparsitySet, Unstructured
from detprune.sets import SETS
from detprune.sets.pattern import EIGHT_PATTERNS

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
every_set = pytest.mark.parametrize("name", CASES)
every_level = pytest.mark.parametrize(
    ("name", "sparsity"), [(name, s) for name, case in CASES.items() for s in case[3]]
)
integers = st.integers(-3, 3)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal, and +0.0 told from −0.0."""
    return torch.equal(a, b) and torch.equal(torch.signbit(a), torch.signbit(b))


def assert_promised_count(
    sparsity_set: SparsitySet, mask: Tensor, weight: Tensor, sparsity: float
) -> None:
    """The support is made of whole groups, exactly as many as promised."""
    if isinstance(sparsity_set, NM):
        per_group = mask.movedim(1, -1).reshape(-1, sparsity_set.m).sum(1)
        assert (per_group == sparsity_set.n).all()
    elif isinstance(sparsity_set, Pattern):
        kernels = [tuple(kernel.nonzero()[:, 0].tolist()) for kernel in mask.reshape(-1, 9)]
        kept = [kernel for kernel in kernels if kernel]
        assert set(kept) <= set(EIGHT_PATTERNS)
        assert len(kept) == promised_kernels(weight, sparsity)
    else:
        ids = group_ids(sparsity_set, tuple(weight.shape))
        kept_groups = ids[mask].unique()
        assert torch.equal(mask, torch.isin(ids, kept_groups)), "a group is kept in part"
        assert len(kept_groups) == promised(int(ids.max()) + 1, sparsity)


def test_every_registered_set_is_in_the_suite() -> None:
    assert {type(case[0]) for case in CASES.values()} == set(SETS.values())


@every_level
@pytest.mark.parametrize("kind", ["normal", "zero", "one", "two values"])
def test_exactly_the_promised_count_is_kept(name: str, sparsity: float, kind: str) -> None:
    sparsity_set, _, shape, _ = CASES[name]
    weight = {
        "normal": torch.randn(shape),
        "zero": torch.zeros(shape),
        "one": torch.ones(shape),
        "two values": torch.randint(1, 3, shape).float() * (1 - 2 * torch.randint(2, shape)),
    }[kind]
    mask = sparsity_set.mask(weight, sparsity)
    assert mask.dtype == torch.bool
    assert mask.shape == weight.shape
    assert_promised_count(sparsity_set, mask, weight, sparsity)


@every_set
@settings(max_examples=25)
@given(data=st.data())
def test_support_is_that_of_a_stable_sort_under_ties(name: str, data: st.DataObject) -> None:
    sparsity_set, _, shape, sparsities = CASES[name]
    values = data.draw(arrays.arrays(np.int8, shape, elements=integers))
    sparsity = data.draw(st.sampled_from(sparsities))
    weight = torch.from_numpy(values).float()
    expected = reference_mask(sparsity_set, weight, sparsity)
    assert torch.equal(sparsity_set.mask(weight, sparsity), expected)


@every_set
@settings(max_examples=15)
@given(data=st.data())
def test_support_is_the_same_in_every_dtype(name: str, data: st.DataObject) -> None:
    sparsity_set, _, shape, sparsities = CASES[name]
    # 8 bits of mantissa and a small exponent: exact in all four dtypes
    mantissas = data.draw(arrays.arrays(np.int16, shape, elements=st.integers(-255, 255)))
    exponents = data.draw(arrays.arrays(np.int8, shape, elements=st.integers(-12, 4)))
    sparsity = data.draw(st.sampled_from(sparsities))
    exact = torch.from_numpy(np.ldexp(mantissas.astype(np.float64), exponents))
    expected = reference_mask(sparsity_set, exact, sparsity)
    for dtype in DTYPES:
        weight = exact.to(dtype)
        assert torch.equal(weight.double(), exact)
        projected = sparsity_set.project(weight, sparsity)
        assert projected.dtype == dtype
        assert torch.equal(sparsity_set.mask(weight, sparsity), expected)
        assert torch.equal(projected, weight * expected)


@every_level
def test_projection_is_the_nearest_point_of_the_set(name: str, sparsity: float) -> None:
    sparsity_set, shape, _, _ = CASES[name]
    for seed in range(3):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
        supports = list(all_supports(sparsity_set, weight, sparsity))
        distances = [float((weight * ~support).square().sum()) for support in supports]
        projected = sparsity_set.project(weight, sparsity)
        best = supports[distances.index(min(distances))]
        assert float((weight - projected).square().sum()) <= min(distances) + 1e-12
        assert any(torch.equal(projected != 0, support) for support in supports)
        assert torch.equal(projected != 0, best), "another support is as near: choose other weights"


@every_level
def test_projection_is_idempotent_and_leaves_feasible_points(name: str, sparsity: float) -> None:
    sparsity_set, _, shape, _ = CASES[name]
    weight = torch.randn(shape)
    once = sparsity_set.project(weight, sparsity)
    assert same_bits(sparsity_set.project(once, sparsity), once)
    feasible = torch.randn(shape) * sparsity_set.mask(torch.randn(shape), sparsity)
    assert torch.equal(sparsity_set.project(feasible, sparsity), feasible)


@every_level
def test_zeros_are_positive_and_kept_values_are_untouched(name: str, sparsity: float) -> None:
    sparsity_set, _, shape, _ = CASES[name]
    weight = -torch.randn(shape).abs()  # 0 · negative would be −0.0
    mask = sparsity_set.mask(weight, sparsity)
    projected = sparsity_set.project(weight, sparsity)
    assert torch.equal(projected[mask], weight[mask])
    assert not torch.signbit(projected[~mask]).any()
    assert not projected[~mask].any()


@every_level
def test_input_is_left_alone(name: str, sparsity: float) -> None:
    sparsity_set, _, shape, _ = CASES[name]
    weight = torch.nn.Parameter(torch.randn(shape))
    before, version = weight.detach().clone(), weight._version
    projected = sparsity_set.project(weight, sparsity)
    assert torch.equal(weight.detach(), before)
    assert weight._version == version
    assert projected.data_ptr() != weight.data_ptr()
    assert not projected.requires_grad


def layouts(weight: Tensor) -> dict[str, Tensor]:
    """The same values, stored otherwise."""
    doubled = torch.full([2 * size for size in weight.shape], math.nan)
    strided = doubled[tuple(slice(None, None, 2) for _ in weight.shape)]
    strided.copy_(weight)
    transposed = weight.transpose(0, 1).contiguous().transpose(0, 1)
    stored = {"strided": strided, "transposed": transposed}
    if weight.dim() == 4:
        stored["channels_last"] = weight.to(memory_format=torch.channels_last)
    return stored


@every_level
@pytest.mark.parametrize("ties", [False, True])
def test_support_does_not_depend_on_the_memory_layout(
    name: str, sparsity: float, ties: bool
) -> None:
    sparsity_set, _, shape, _ = CASES[name]
    weight = torch.randint(-2, 3, shape).float() if ties else torch.randn(shape)
    expected = sparsity_set.project(weight, sparsity)
    support = sparsity_set.mask(weight, sparsity)
    for layout, stored in layouts(weight).items():
        assert not stored.is_contiguous(), layout
        projected = sparsity_set.project(stored, sparsity)
        assert torch.equal(sparsity_set.mask(stored, sparsity), support), layout
        assert same_bits(projected, expected), layout
        if layout == "channels_last":
            assert projected.is_contiguous(memory_format=torch.channels_last)
    assert expected.is_contiguous()


@every_set
def test_two_dimensional_weights_project_too(name: str) -> None:
    sparsity_set, _, _, sparsities = CASES[name]
    weight = torch.randint(-2, 3, (8, 12)).float()
    if (problem := sparsity_set.problem_with(weight.shape)) is not None:
        with pytest.raises(InputError, match=rf"shape \(8, 12\) {re.escape(problem)}"):
            sparsity_set.mask(weight, sparsities[0])
        return
    expected = reference_mask(sparsity_set, weight, sparsities[-1])
    assert torch.equal(sparsity_set.mask(weight, sparsities[-1]), expected)


@pytest.mark.parametrize("sparsity_set", [Unstructured(), Filter(), Column(), Block(3, 5)])
@settings(max_examples=25)
@given(data=st.data())
def test_joint_masks_rank_the_concatenation(sparsity_set: SparsitySet, data: st.DataObject) -> None:
    shapes = [(5, 4, 3, 3), (7, 6), (2, 3, 1, 1)]
    dtypes = data.draw(st.lists(st.sampled_from(DTYPES), min_size=3, max_size=3))
    sparsities = data.draw(st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=3, max_size=3))
    weights = [
        torch.from_numpy(data.draw(arrays.arrays(np.int8, shape, elements=integers))).to(dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    scores = [group_scores(sparsity_set, weight) for weight in weights]
    count = sum(promised(len(s), level) for s, level in zip(scores, sparsities, strict=True))
    chosen = first_largest(torch.cat(scores), count).split([len(s) for s in scores])
    masks = sparsity_set.masks(weights, sparsities, jointly=True)
    for weight, mask, groups in zip(weights, masks, chosen, strict=True):
        assert torch.equal(mask, groups[group_ids(sparsity_set, tuple(weight.shape))])


def test_joint_patterns_rank_all_kernels() -> None:
    weights = [torch.randn(3, 2, 3, 3), 3 * torch.randn(2, 2, 3, 3)]
    masks = Pattern().masks(weights, [0.8, 0.8], jointly=True)
    count = sum(promised_kernels(weight, 0.8) for weight in weights)
    stacked = torch.cat([weight.reshape(-1, 1, 3, 3) for weight in weights])
    energies = (stacked * Pattern().mask(stacked, 5 / 9)).square().sum((1, 2, 3))
    kept = torch.cat([mask.reshape(-1, 9).any(1) for mask in masks])
    assert torch.equal(kept, first_largest(energies, count))
    assert masks[1].sum() > masks[0].sum(), "the larger weights win the shared count"


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan])
def test_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(InputError, match=r"allowed is 0 ≤ sparsity < 1 \(0.9 sets 90 % to zero\)"):
        Filter().mask(torch.ones(4, 4), sparsity)


def test_what_a_set_cannot_hold_is_said() -> None:
    with pytest.raises(InputError, match=r"Filter\(\) needs a sparsity in \[0, 1\), for example"):
        Filter().mask(torch.ones(4, 4))
    with pytest.raises(InputError, match=r"\(4,\) has 1 dimension\(s\), the set needs 2 or more"):
        Unstructured().mask(torch.ones(4), 0.5)
    with pytest.raises(InputError, match="has 6 input channels, which is no multiple of 4"):
        NM(2, 4).mask(torch.ones(4, 6))
    with pytest.raises(
        InputError, match=r"2:4 always has 0\.5; leave it out, or use compression=2"
    ):
        NM(2, 4).mask(torch.ones(4, 8), 0.9)
    with pytest.raises(InputError, match=r"n:m is 5:4, allowed is 1 ≤ n ≤ m"):
        NM(5, 4)
    with pytest.raises(InputError, match=r"n is '2:4', allowed is .* \(2:4 is n=2, m=4\)"):
        NM("2:4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="block: rows is 0, allowed is a whole number"):
        Block(0, 4)
    with pytest.raises(InputError, match=r"shape \(8, 12\) is no convolution with a 3×3 kernel"):
        Pattern().mask(torch.ones(8, 12), 0.7)
    with pytest.raises(InputError, match=r"the patterns alone already set 0\.5556"):
        Pattern().mask(torch.ones(4, 4, 3, 3), 0.5)
    with pytest.raises(InputError, match="same number of distinct positions between 0 and 8"):
        Pattern(patterns=((0, 1), (4, 9)))


def test_sets_that_fix_their_sparsity_need_none() -> None:
    assert NM(1, 4).mask(torch.randn(4, 8)).float().mean() == 0.25
    mask = Pattern().mask(torch.randn(4, 4, 3, 3))
    assert mask.sum() == 4 * mask.shape[0] * mask.shape[1]
