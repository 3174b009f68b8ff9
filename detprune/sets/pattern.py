"""Pattern pruning with kernel dropping (Niu et al. 2020, PatDNN; Ma et al. 2020, PCONV).

The papers take the patterns that occur most often in their networks. Choice made here: the eight
symmetric ones that contain the centre, namely the four 2×2 corners and the four T shapes (the
centre with three of its four edge neighbours). Others can be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from detprune.errors import InputError
from detprune.projections import best_patterns, largest
from detprune.sets.base import SparsitySet
from detprune.values import check_whole

# Row-major positions in a 3×3 kernel: 0 1 2 / 3 4 5 / 6 7 8
EIGHT_PATTERNS = (
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (3, 4, 6, 7),
    (4, 5, 7, 8),
    (1, 3, 4, 5),
    (3, 4, 5, 7),
    (1, 3, 4, 7),
    (1, 4, 5, 7),
)


@dataclass(frozen=True)
class Pattern(SparsitySet):
    """A 3×3 kernel keeps one of a few 4-entry patterns; l kernels are kept, the others dropped.

    Attributes:
        patterns: positions in the kernel, row by row, that a pattern keeps; all of the same number.
        kernel: height and width of the kernels.
    """

    patterns: tuple[tuple[int, ...], ...] = EIGHT_PATTERNS
    kernel: tuple[int, int] = (3, 3)

    def __post_init__(self) -> None:
        _check_shape("pattern: kernel", self.kernel, "a height and a width, for example (3, 3)")
        for side in self.kernel:
            check_whole("pattern: kernel", side, "two whole numbers, 1 or more")
        if len(self.kernel) != 2:
            raise InputError(f"pattern: kernel is {self.kernel}, allowed are a height and a width")
        _check_shape("patterns", self.patterns, "a list of patterns, for example [(0, 1, 3, 4)]")
        for pattern in self.patterns:
            _check_shape("a pattern", pattern, "a list of positions, for example (0, 1, 3, 4)")
            for position in pattern:
                check_whole("a position of a pattern", position, "a whole number, 0 or more", 0)
        sizes = {len(set(pattern)) for pattern in self.patterns}
        size = self.kernel[0] * self.kernel[1]
        outside = [p for pattern in self.patterns for p in pattern if not 0 <= p < size]
        if len(sizes) != 1 or 0 in sizes or outside:
            raise InputError(
                f"patterns are {self.patterns}; each must list the same number of distinct positions "
                f"between 0 and {size - 1} (row-major in the {self.kernel[0]}×{self.kernel[1]} kernel)"
            )

    @property
    def own_sparsity(self) -> float:
        """Sparsity when every kernel is kept: 5/9 for four of nine."""
        return 1 - len(self.patterns[0]) / (self.kernel[0] * self.kernel[1])

    def problem_with(self, shape: Size) -> str | None:
        """Only convolutions with the patterns' kernel size fit."""
        if len(shape) == 4 and tuple(shape[2:]) == self.kernel:
            return None
        return f"is no convolution with a {self.kernel[0]}×{self.kernel[1]} kernel"

    def check_sparsity(self, sparsity: float | None) -> float:
        """Patterns alone set the least sparsity; more is reached by dropping kernels."""
        sparsity = super().check_sparsity(sparsity)
        if sparsity < self.own_sparsity - 1e-6:
            raise InputError(
                f"sparsity is {sparsity}, but the patterns alone already set {self.own_sparsity:.4g} "
                "of the weights to zero; ask for that or more"
            )
        return sparsity

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Best pattern of every kernel; then the kernels whose pattern keeps the largest norm."""
        patterns = torch.zeros(
            len(self.patterns), self.kernel[0] * self.kernel[1], dtype=torch.bool
        )
        for row, pattern in enumerate(self.patterns):
            patterns[row, list(pattern)] = True
        entries = len(self.patterns[0])
        best = [best_patterns(weight, patterns) for weight in weights]
        count = sum(
            min(norms.numel(), max(1, round((1 - sparsity) * weight.numel() / entries)))
            for weight, (_, norms), sparsity in zip(weights, best, sparsities, strict=True)
        )
        kernels = largest([norms for _, norms in best], count)
        masks = []
        for weight, (indices, _), kept in zip(weights, best, kernels, strict=True):
            chosen = patterns.to(weight.device)[indices] & kept[..., None]
            masks.append(chosen.view(weight.shape))
        return masks


def _check_shape(name: str, value: object, allowed: str) -> None:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is {value!r:.60}, allowed is {allowed}")
