"""Labels of channels through a change of shape."""

from collections.abc import Sequence

import numpy as np

from detprune.channels.labels import Labels, Row


def reshaped(
    labels: Labels, row: Row, dim: int, old: Sequence[int], new: Sequence[int]
) -> tuple[Row, int] | None:
    """Labels of the channels of ``tensor.view(new)``.

    A view that splits channels into (a, b) computes a and b again when it runs on fewer channels. So only whole
    indices of b can be removed: the labels are united along a.

    Args:
        row, dim: labels of the channels, and the dimension of ``old`` that they number.
        old, new: shapes before and after.

    Returns:
        Labels and dimension after the view; None where the shapes do not fit together, or no dimension
        numbers channels any more.
    """
    block = _block_with(dim, old, new)
    if block is None:
        return None
    olds, news = block
    shape = [old[i] if i == dim else 1 for i in olds]
    full = np.broadcast_to(row.reshape(shape), [old[i] for i in olds])
    full = full.reshape([new[i] for i in news])
    last = None
    for axis in range(full.ndim - 1, -1, -1):
        first = full.take([0], axis)
        if full.shape[axis] == 1 or (full == first).all():
            full = first
        elif last is None:
            last = axis
        else:
            labels.unite(np.broadcast_to(first, full.shape).ravel(), full.ravel())
            full = first
    if last is None:
        return None
    return full.ravel().copy(), news[last]


def _block_with(
    dim: int, old: Sequence[int], new: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """The fewest neighbouring dimensions, with ``dim`` among the old ones, that hold the same entries."""
    i = j = 0
    while i < len(old):
        olds: list[int] = [i]
        news: list[int] = []
        product, target = 1, old[i]
        i += 1
        while product != target or not news:
            if product < target or not news:
                if j == len(new):
                    return None
                product *= new[j]
                news.append(j)
                j += 1
            else:
                if i == len(old):
                    return None
                target *= old[i]
                olds.append(i)
                i += 1
        if dim in olds:
            return olds, news
    return None
