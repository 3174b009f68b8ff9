"""Squared l2 norms of groups of weights, and supports spread back from groups to weights.

Norms are sums of squares in float64, where the square of a float32 number is exact. They are added in
the fixed order of ``tree_sum``, so that the ranking of groups is the same on every device.
"""

import torch
from torch import Tensor

from detprune.projections.selection import tree_sum


def _squares(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.float64, memory_format=torch.contiguous_format).square()


def slice_norms(weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Squared norms of the slices that share an index along ``dims``.

    Args:
        weight: any shape.
        dims: the dimensions that number the groups; the norm runs over all others.

    Returns:
        float64, the sizes of ``dims`` in order.
    """
    others = [dim for dim in range(weight.dim()) if dim not in dims]
    grouped = _squares(weight).permute(*dims, *others)
    return tree_sum(grouped.flatten(len(dims)).contiguous()) if others else grouped.clone()


def block_norms(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """Squared norms of the tiles of the 2-D view (out, rest); ragged edges count as zeros.

    Returns:
        float64, (ceil(out / b0), ceil(rest / b1)).
    """
    matrix = _squares(weight).flatten(1)
    rows, columns = block
    pad = (-matrix.shape[1] % columns, -matrix.shape[0] % rows)
    padded = torch.nn.functional.pad(matrix, (0, pad[0], 0, pad[1]))
    tiles = padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2)
    return tree_sum(tiles.flatten(2).contiguous())


def expand_blocks(tiles: Tensor, shape: torch.Size, block: tuple[int, int]) -> Tensor:
    """Spread a boolean per tile (as numbered by ``block_norms``) over the weights of the tile."""
    rows, columns = shape[0], shape[1:].numel()
    spread = tiles.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return spread[:rows, :columns].reshape(shape)


def n_of_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Support of the n largest of every m consecutive entries along dim 1; ties to the lowest index.

    It is the support of argmin ‖Z − weight‖ over all Z with at most n nonzeros in every such group of m.

    Args:
        weight: (out, in, …) with in a multiple of m.

    Returns:
        Boolean, of the weight's shape.
    """
    grouped = weight.detach().abs().unflatten(1, (-1, m))
    order = grouped.sort(dim=2, descending=True, stable=True).indices
    mask = torch.zeros_like(grouped, dtype=torch.bool, memory_format=torch.contiguous_format)
    mask.scatter_(2, order.narrow(2, 0, n), True)
    return mask.flatten(1, 2)


def best_patterns(weight: Tensor, patterns: Tensor) -> tuple[Tensor, Tensor]:
    """Pattern that keeps the largest squared norm of every kernel, and that norm.

    Args:
        weight: (out, in, kh, kw).
        patterns: boolean, (P, kh·kw).

    Returns:
        Index of the best pattern (lowest index on ties) and the squared norm that it keeps, both
        (out, in).
    """
    squares = _squares(weight).flatten(2)
    scores = torch.stack(
        [tree_sum(squares[..., pattern.nonzero()[:, 0]].contiguous()) for pattern in patterns], -1
    )
    # max(dim) does not promise the first index among equals on every device; a stable sort does
    best = scores.sort(dim=-1, descending=True, stable=True)
    return best.indices[..., 0], best.values[..., 0]
