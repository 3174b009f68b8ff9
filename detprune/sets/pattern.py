"""Pattern pruning with kernel dropping (Niu et al. 2020, PatDNN; Ma et al. 2020, PCONV).

The papers take the patterns that occur most often in their networks. Choice made here: by default the
eight symmetric patterns that contain the centre, namely the four 2×2 corners and the four T shapes (the
centre with three of its four edge neighbours).
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
    """Patterns: at most l kernels are nonzero, each on one of a few 4-entry patterns of its 3×3 weights.

    The projection gives every kernel the pattern that keeps its largest l2 norm, and then keeps the l kernels whose
    patterns keep most; ties go to the lowest index. Sources: Niu et al. 2020, PatDNN; Ma et al. 2020, PCONV.

    Attributes:
        patterns: each pattern as the positions that it keeps, row by row; all have the same number of positions.
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
        """The least sparsity, with every kernel kept: 5/9 where patterns keep four of nine."""
        return 1 - len(self.patterns[0]) / (self.kernel[0] * self.kernel[1])

    def problem_with(self, shape: Size) -> str | None:
        """Refuse a weight that is not of a convolution with the patterns' kernel size."""
        if len(shape) == 4 and tuple(shape[2:]) == self.kernel:
            return None
        return f"is no convolution with a {self.kernel[0]}×{self.kernel[1]} kernel"

    def check_sparsity(self, sparsity: float | None) -> float:
        """Refuse a sparsity below that of the patterns alone; dropping kernels can only raise it."""
        sparsity = super().check_sparsity(sparsity)
        if sparsity < self.own_sparsity - 1e-6:
            raise InputError(
                f"sparsity is {sparsity}, but the patterns alone already set {self.own_sparsity:.4g} "
                "of the weights to zero; ask for that or more"
            )
        return sparsity

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Choose the best pattern of every kernel, then the kernels whose patterns keep the largest norms."""
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
