"""Obvious references: projections by sorting, and by trying every allowed support."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from detprune import NM, Block, Channel, Column, Filter, Pattern, SparsitySet, Unstructured
from detprune.sets.pattern import EIGHT_PATTERNS

# every set, a small shape for enumeration, a larger one, and sparsities that it can have
CASES: dict[str, tuple[SparsitySet, tuple[int, ...], tuple[int, ...], tuple[float, ...]]] = {
    "unstructured": (Unstructured(), (2, 5), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "nm24": (NM(2, 4), (2, 4, 1, 2), (8, 4, 3, 3), (0.5,)),
    "nm14": (NM(1, 4), (2, 8), (8, 4, 3, 3), (0.75,)),
    "filter": (Filter(), (6, 2, 1, 2), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "channel": (Channel(), (2, 6, 1, 2), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "column": (Column(), (3, 2, 2, 2), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "block44": (Block(4, 4), (8, 4, 2, 2), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "block35": (Block(3, 5), (4, 3, 2, 2), (8, 4, 3, 3), (0.0, 0.3, 0.5, 0.9, 0.9999)),
    "pattern": (Pattern(), (2, 2, 3, 3), (8, 4, 3, 3), (5 / 9, 0.7, 0.9, 0.9999)),
}
"""name → (set, shape to enumerate, shape, sparsities)."""


def group_ids(sparsity_set: SparsitySet, shape: tuple[int, ...]) -> Tensor:
    """Number of the group that every weight belongs to, counted row by row."""
    rows = shape[0]
    columns = torch.Size(shape[1:]).numel()
    row = torch.arange(rows)[:, None].expand(rows, columns)
    column = torch.arange(columns).expand(rows, columns)
    match sparsity_set:
        case Unstructured():
            ids = row * columns + column
        case Filter():
            ids = row
        case Channel():
            ids = column // torch.Size(shape[2:]).numel()
        case Column():
            ids = column
        case Block(rows=height, columns=width):
            ids = (row // height) * -(-columns // width) + column // width
        case _:
            raise TypeError(f"{sparsity_set!r} does not partition the weights")
    return ids.reshape(shape)


def group_scores(sparsity_set: SparsitySet, weight: Tensor) -> Tensor:
    """Σ w² per group, in float64 (exact for small integers)."""
    ids = group_ids(sparsity_set, tuple(weight.shape)).flatten()
    scores = torch.zeros(int(ids.max()) + 1, dtype=torch.float64)
    return scores.index_add_(0, ids, weight.double().flatten().square())


def first_largest(scores: Tensor, count: int) -> Tensor:
    """Boolean of the ``count`` largest, ties to the lowest index: a stable sort, nothing else."""
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[scores.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def promised(groups: float, sparsity: float) -> int:
    """l = round((1 − sparsity) · groups), at least 1."""
    return max(1, round((1 - sparsity) * groups))


def promised_kernels(weight: Tensor, sparsity: float) -> int:
    """How many 3×3 kernels with 4 entries each make up the weights that are to be kept."""
    kernels = weight.shape[0] * weight.shape[1]
    return min(kernels, promised(weight.numel() / 4, sparsity))


def reference_mask(sparsity_set: SparsitySet, weight: Tensor, sparsity: float) -> Tensor:
    """The support, by stable sorting in float64."""
    if isinstance(sparsity_set, NM):
        moved = weight.double().abs().movedim(1, -1)
        flat = moved.reshape(-1, sparsity_set.m)
        chosen = torch.stack([first_largest(group, sparsity_set.n) for group in flat])
        return chosen.reshape(moved.shape).movedim(-1, 1)
    if isinstance(sparsity_set, Pattern):
        kernels = weight.double().square().reshape(-1, 9)
        kept = [[float(k[list(p)].sum()) for p in EIGHT_PATTERNS] for k in kernels]
        best = [scores.index(max(scores)) for scores in kept]
        norms = torch.tensor([max(scores) for scores in kept], dtype=torch.float64)
        mask = torch.zeros_like(kernels, dtype=torch.bool)
        for kernel in first_largest(norms, promised_kernels(weight, sparsity)).nonzero():
            mask[kernel, list(EIGHT_PATTERNS[best[int(kernel)]])] = True
        return mask.reshape(weight.shape)
    ids = group_ids(sparsity_set, tuple(weight.shape))
    scores = group_scores(sparsity_set, weight)
    return first_largest(scores, promised(scores.numel(), sparsity))[ids]


def all_supports(sparsity_set: SparsitySet, weight: Tensor, sparsity: float) -> Iterator[Tensor]:
    """Every support of the promised size that the set allows."""
    if isinstance(sparsity_set, NM):
        moved = weight.movedim(1, -1)
        one = list(itertools.combinations(range(sparsity_set.m), sparsity_set.n))
        for choice in itertools.product(one, repeat=weight.numel() // sparsity_set.m):
            mask = torch.zeros(len(choice), sparsity_set.m, dtype=torch.bool)
            for row, positions in enumerate(choice):
                mask[row, list(positions)] = True
            yield mask.reshape(moved.shape).movedim(-1, 1)
    elif isinstance(sparsity_set, Pattern):
        kernels = weight.numel() // 9
        count = promised_kernels(weight, sparsity)
        for kept in itertools.combinations(range(kernels), count):
            for patterns in itertools.product(EIGHT_PATTERNS, repeat=count):
                mask = torch.zeros(kernels, 9, dtype=torch.bool)
                for kernel, pattern in zip(kept, patterns, strict=True):
                    mask[kernel, list(pattern)] = True
                yield mask.reshape(weight.shape)
    else:
        ids = group_ids(sparsity_set, tuple(weight.shape))
        groups = int(ids.max()) + 1
        for kept in itertools.combinations(range(groups), promised(groups, sparsity)):
            yield torch.isin(ids, torch.tensor(kept))
