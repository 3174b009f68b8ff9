"""Selection in large tensors, where a sample brackets the answer, against a plain stable sort."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from detprune import Unstructured
from detprune.methods import penalty
from detprune.projections import keep, largest, selection, tree_sum

LARGE = 3_000_000
STRIDE = (LARGE // (1 << 19)) | 1


def sort_reference(values: Sequence[Tensor], count: int) -> list[Tensor]:
    """Rank the concatenation, row-major, with a stable sort."""
    flat = torch.cat([value.reshape(-1).abs() for value in values])
    chosen = torch.zeros(flat.numel(), dtype=torch.bool)
    chosen[flat.sort(descending=True, stable=True).indices[:count]] = True
    pieces = chosen.split([value.numel() for value in values])
    return [piece.view(value.shape) for piece, value in zip(pieces, values, strict=True)]


def unlucky(low_sample: bool) -> Tensor:
    """Values that differ at just the positions that are sampled, so that every bracket misses."""
    values = torch.rand(LARGE) + 1
    values[::STRIDE] = torch.rand(len(values[::STRIDE])) + (0 if low_sample else 2)
    return values


LARGE_TENSORS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: torch.randn(LARGE),
    "ties": lambda: torch.randint(-3, 4, (LARGE,)).float(),
    "constant": lambda: torch.full((LARGE,), -0.5),
    "zero": lambda: torch.zeros(LARGE),
    "mostly zero": lambda: torch.randn(LARGE) * (torch.rand(LARGE) < 0.05),
    "sorted": lambda: torch.arange(LARGE, dtype=torch.float32).sub_(1000),
    "half precision": lambda: torch.randn(LARGE).bfloat16(),
    "sample too low": lambda: unlucky(low_sample=True),
    "sample too high": lambda: unlucky(low_sample=False),
}


@pytest.fixture
def selections(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether every selection between two bounds found the answer, in order."""
    found: list[bool] = []
    original = selection._select_between

    def noted(*args: Any) -> selection.Threshold | None:
        threshold = original(*args)
        found.append(threshold is not None)
        return threshold

    monkeypatch.setattr(selection, "_select_between", noted)
    return found


@pytest.mark.parametrize("kind", LARGE_TENSORS)
def test_large_tensors_are_ranked_like_a_stable_sort(kind: str, selections: list[bool]) -> None:
    values = LARGE_TENSORS[kind]()
    order = values.abs().sort(descending=True, stable=True).indices
    # 750,000 lies where a sample of other values puts its bracket apart from the answer
    for count in (1, 750_000, LARGE - 1):
        chosen = torch.zeros(LARGE, dtype=torch.bool)
        chosen[order[:count]] = True
        selections.clear()
        assert torch.equal(largest([values], count)[0], chosen), count
        assert selections[-1]
        if count == 750_000:
            missed = kind.startswith("sample too")
            assert selections == ([False, True] if missed else [True])


def test_large_joint_selection_over_several_layouts() -> None:
    first = torch.randint(-9, 10, (1000, 900)).float()
    second = torch.randint(-9, 10, (1200, 1300)).float().t()
    third = torch.randint(-9, 10, (64, 64, 3, 3)).float().to(memory_format=torch.channels_last)
    values = [first, second, third]
    assert sum(value.numel() for value in values) > 4 * selection._SAMPLE
    for count in (5, 700_000, 2_000_000):
        masks = largest(values, count)
        assert sum(int(mask.sum()) for mask in masks) == count
        for mask, expected in zip(masks, sort_reference(values, count), strict=True):
            assert torch.equal(mask, expected)


def test_nan_ranks_above_infinity_and_zeros_are_equal() -> None:
    values = torch.tensor([0.0, -0.0, float("inf"), float("nan"), -1.0, 0.0])
    assert largest([values], 1)[0].nonzero().flatten().tolist() == [3]
    assert largest([values], 2)[0].nonzero().flatten().tolist() == [2, 3]
    assert largest([values], 4)[0].nonzero().flatten().tolist() == [0, 2, 3, 4]
    assert largest([values], 5)[0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "kept"), [(0, False), (6, True)])
def test_none_and_all(count: int, kept: bool) -> None:
    masks = largest([torch.zeros(2, 2), torch.ones(2)], count)
    assert [mask.shape for mask in masks] == [(2, 2), (2,)]
    assert all(bool((mask == kept).all()) for mask in masks)


def test_tree_sum_adds_everything_in_halves() -> None:
    for length in range(8):
        values = torch.arange(3.0 * length).reshape(3, length)
        assert torch.equal(tree_sum(values.clone()), values.sum(-1))
    # (1e16 − 1e16) + (1 + 1): halves are added to each other; from left to right it would be 1
    values = torch.tensor([1e16, 1.0, -1e16, 1.0], dtype=torch.float64)
    assert tree_sum(values).item() == 2.0


class Elsewhere(torch.Tensor):
    """A tensor in ordinary memory that says it lies on an accelerator."""

    device = torch.device("cuda")  # type: ignore[assignment]


@pytest.fixture
def as_accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], Tensor]:
    """Make tensors take the accelerator's branch, in small chunks, without an accelerator."""

    def empty(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(shape, dtype=dtype).as_subclass(Elsewhere)

    def no_numpy(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("an accelerator's tensor reached numpy")

    monkeypatch.setattr(selection, "empty", empty)
    monkeypatch.setattr(selection, "_ACCELERATOR_CHUNK", 1 << 20)
    for name in ("partition", "flatnonzero", "count_nonzero", "greater_equal"):
        monkeypatch.setattr(selection.np, name, no_numpy)
    return lambda value: value.as_subclass(Elsewhere)


@pytest.mark.parametrize("kind", ["normal", "ties", "sample too low", "sample too high"])
def test_accelerator_branch_selects_the_same(
    kind: str, as_accelerator: Callable[[Tensor], Tensor], selections: list[bool]
) -> None:
    values = LARGE_TENSORS[kind]()
    expected = sort_reference([values], 750_000)[0]
    mask = largest([as_accelerator(values)], 750_000)[0]
    assert isinstance(mask, Elsewhere)
    assert torch.equal(mask.as_subclass(torch.Tensor), expected)
    assert selections[0] is not kind.startswith("sample too")


def test_accelerator_branch_of_the_penalty_adds_the_same() -> None:
    weights = [torch.randn(5, 3), torch.randn(4), torch.randn(2)]
    anchors = [torch.randn_like(weight) for weight in weights]
    grads = [torch.randn(5, 3), None, torch.randn(2)]
    elsewhere = [weight.as_subclass(Elsewhere) for weight in weights]
    for weight, grad in zip(elsewhere, grads, strict=True):
        weight.grad = None if grad is None else grad.clone().as_subclass(Elsewhere)
    penalty.add_pull(elsewhere, anchors, [0.3, 0.3, 0.3])
    for moved, weight, anchor, grad in zip(elsewhere, weights, anchors, grads, strict=True):
        if grad is None:
            assert moved.grad is None
        else:
            assert moved.grad is not None
            torch.testing.assert_close(
                moved.grad.as_subclass(torch.Tensor), grad + 0.3 * (weight - anchor)
            )


@pytest.mark.cuda
@pytest.mark.parametrize("kind", LARGE_TENSORS)
def test_cuda_keeps_the_same_support(kind: str) -> None:
    values = LARGE_TENSORS[kind]().view(1000, -1)
    expected = Unstructured().project(values, 0.7)
    projected = Unstructured().project(values.cuda(), 0.7)
    assert projected.is_cuda
    assert torch.equal(projected.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("given", [False, True])
def test_keep_of_a_large_tensor_keeps_bits_and_clears_anything(
    dtype: torch.dtype, given: bool
) -> None:
    weight = torch.randn(600_001).to(dtype)
    weight[::7], weight[1::7], weight[2::7] = -0.0, float("nan"), float("-inf")
    mask = torch.rand(600_001) < 0.3
    out = torch.full_like(weight, 5.0) if given else None
    kept = keep(weight, mask, out=out)
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(kept.view(integer)[mask], weight.view(integer)[mask])
    assert not kept.view(integer)[~mask].any()
    if given:
        assert kept is out
