"""Labels of channels, united where two of them have to stay or go together (union-find)."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.int64]
"""One label for each channel, in order."""


class Labels:
    """Classes of channels that are kept or removed together, and reasons why a class cannot be removed."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, count: int, reason: str | None = None) -> Row:
        """Return new labels, (count,), each a class of its own; with a reason they cannot be removed."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        if reason is not None:
            self._reasons.update(dict.fromkeys(range(first, first + count), reason))
        return np.arange(first, first + count, dtype=np.int64)

    def find(self, label: int) -> int:
        """The representative label of a class, which is its earliest."""
        parents = self._parents
        root = label
        while parents[root] != root:
            root = parents[root]
        while parents[label] != root:
            parents[label], label = root, parents[label]
        return root

    def unite(self, one: Row, other: Row) -> None:
        """Unite the classes of each pair of labels from two rows of one length."""
        for a, b in zip(
            cast(list[int], one.tolist()), cast(list[int], other.tolist()), strict=True
        ):
            first, second = self.find(a), self.find(b)
            if first == second:
                continue
            low, high = min(first, second), max(first, second)
            self._parents[high] = low
            if (reason := self._reasons.pop(high, None)) is not None:
                self._reasons.setdefault(low, reason)

    def unite_all(self, row: Row) -> None:
        """Unite all labels of a row into one class."""
        self.unite(row[:-1], row[1:])

    def freeze(self, row: Row, reason: str) -> None:
        """Let the classes of these labels stay; the first reason given for a class is the one reported."""
        for label in cast(list[int], row.tolist()):
            self._reasons.setdefault(self.find(label), reason)

    def reason(self, label: int) -> str | None:
        """The reason why the class of the label cannot be removed; None if it can."""
        return self._reasons.get(self.find(label))

    def roots(self) -> Row:
        """The representative label of every label, (labels,)."""
        return np.array([self.find(label) for label in range(len(self))], dtype=np.int64)
