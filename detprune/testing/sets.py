"""The contract of a sparsity set."""

from collections.abc import Sequence

import torch
from torch import Size, Tensor

from detprune.errors import InputError
from detprune.sets import SparsitySet
from detprune.testing.requirement import require

_SHAPES = ((16, 8, 3, 3), (32, 16, 1, 1), (16, 32))
_SPARSITIES = (0.0, 0.3, 0.5, 0.75)
_OTHERS = 25  # number of feasible points that the projection is compared with


def check_set(sparsity_set: SparsitySet, shapes: Sequence[Sequence[int]] = _SHAPES) -> None:
    """Check on random weights that a set's projection is the Euclidean projection onto the set.

    - It keeps weights as they are and sets the rest to zero; the weight that went in is not changed.
    - It is idempotent, and no other feasible point that was tried lies nearer.
    - The same weights in another memory format, in float64, or scaled by two have the same support, also where all
      weights are equal (ties).
    - It never keeps nothing, and refuses sparsities outside [0, 1).

    Args:
        sparsity_set: the set.
        shapes: of weights, (out, in, …); those that ``problem_with`` refuses are left out.

    Raises:
        AssertionError: with what does not hold.
    """
    hash(sparsity_set)
    held = [Size(shape) for shape in shapes if sparsity_set.problem_with(Size(shape)) is None]
    require(bool(held), f"{sparsity_set!r} holds none of the shapes {[tuple(s) for s in shapes]}")
    own = sparsity_set.own_sparsity
    for shape in held:
        for sparsity in _SPARSITIES if own is None else (own,):
            _check_projection(sparsity_set, shape, sparsity)
    for wrong in (-0.1, 1.0, float("nan")):
        try:
            sparsity_set.mask(torch.ones(held[0]), wrong)
        except InputError:
            continue
        raise AssertionError(
            f"{sparsity_set!r} accepts a sparsity of {wrong}; call check_sparsity()"
        )


def _check_projection(sparsity_set: SparsitySet, shape: Size, sparsity: float) -> None:
    where = f"{sparsity_set!r}, shape {tuple(shape)}, sparsity {sparsity:g}"
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    before = weight.clone()
    mask = sparsity_set.mask(weight, sparsity)
    require(torch.equal(weight, before), f"{where}: mask() has changed the weight")
    require(
        mask.dtype == torch.bool and mask.shape == shape,
        f"{where}: the support is {mask.dtype} of shape {tuple(mask.shape)}",
    )
    require(bool(mask.any()), f"{where}: nothing is kept")
    projected = sparsity_set.project(weight, sparsity)
    require(
        torch.equal(projected, weight.masked_fill(~mask, 0.0)),
        f"{where}: project() is not the weight on its support and zero elsewhere",
    )
    again = sparsity_set.project(projected, sparsity)
    require(torch.equal(again, projected), f"{where}: a second projection gives another point")
    for other in (weight.double(), 2 * weight, _other_format(weight)):
        require(
            torch.equal(sparsity_set.mask(other, sparsity), mask),
            f"{where}: in float64, scaled by two, or in another memory format the support is different",
        )
    equal = torch.ones(shape)
    require(
        bool(sparsity_set.mask(equal, sparsity).any()),
        f"{where}: nothing is kept where all weights are equal; keep an exact count",
    )
    require(
        torch.equal(sparsity_set.mask(equal, sparsity), sparsity_set.mask(3 * equal, sparsity)),
        f"{where}: where all weights are equal, the choice is not always the same",
    )
    distance = float((weight - projected).norm())
    for _ in range(_OTHERS):
        support = sparsity_set.mask(torch.randn(shape, generator=generator), sparsity)
        found = float(weight.masked_fill(support, 0.0).norm())
        require(
            found >= distance * (1 - 1e-6),
            f"{where}: a feasible point is at {found:g}, and the projection at {distance:g}",
        )


def _other_format(weight: Tensor) -> Tensor:
    if weight.dim() == 4:
        return weight.to(memory_format=torch.channels_last)
    return weight.t().contiguous().t()
