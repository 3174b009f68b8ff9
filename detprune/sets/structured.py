"""Sets whose groups are slices of the weight: filters, channels, columns (Wen et al. 2016), blocks.

The first two dimensions are (output, input), as in PyTorch's Linear and Conv weights. Transposed
convolutions and Conv1D of transformers store (input, output): there ``Filter`` and ``Channel`` change places.
"""

from dataclasses import dataclass

from torch import Tensor

from detprune.projections import block_norms, expand_blocks, slice_norms
from detprune.sets.base import GroupSet
from detprune.values import check_whole


@dataclass(frozen=True)
class Filter(GroupSet):
    """Output filters (dim 0): at most l of the slices Z[i] are nonzero.

    The projection keeps the l filters of largest l2 norm, ties to the lowest index. Source: Wen et al. 2016.
    """

    def scores(self, weight: Tensor) -> Tensor:
        """Squared norm per filter, (out,)."""
        return slice_norms(weight, (0,))

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """Keep all weights of a kept filter."""
        return groups.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight).contiguous()


@dataclass(frozen=True)
class Channel(GroupSet):
    """Input channels (dim 1): at most l of the slices Z[:, j] are nonzero.

    The projection keeps the l channels of largest l2 norm, ties to the lowest index. Source: Wen et al. 2016.
    """

    def scores(self, weight: Tensor) -> Tensor:
        """Squared norm per input channel, (in,)."""
        return slice_norms(weight, (1,))

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """Keep all weights that read a kept channel."""
        return groups.view(1, -1, *[1] * (weight.dim() - 2)).expand_as(weight).contiguous()


@dataclass(frozen=True)
class Column(GroupSet):
    """Columns of the 2-D view (out, in·kh·kw): at most l of the slices Z[:, j, y, x] are nonzero.

    The projection keeps the l columns of largest l2 norm, ties to the lowest index. Source: Wen et al. 2016.
    """

    def scores(self, weight: Tensor) -> Tensor:
        """Squared norm per column, (in, kh, kw)."""
        return slice_norms(weight, tuple(range(1, weight.dim())))

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """Keep a kept column in all filters."""
        return groups.expand_as(weight).contiguous()


@dataclass(frozen=True)
class Block(GroupSet):
    """Blocks: at most l tiles of the 2-D view (out, in·kh·kw) are nonzero.

    A tile has ``rows`` × ``columns`` weights; a smaller one at the edge counts as a tile too. The projection keeps
    the l tiles of largest l2 norm, ties to the lowest index.

    Attributes:
        rows: height of a tile, in output channels.
        columns: width of a tile, in columns of the view.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            check_whole(f"block: {name}", getattr(self, name), "a whole number, 1 or more")

    def scores(self, weight: Tensor) -> Tensor:
        """Squared norm per tile, (ceil(out / rows), ceil(in·kh·kw / columns))."""
        return block_norms(weight, (self.rows, self.columns))

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        """Keep all weights of a kept tile."""
        return expand_blocks(groups, weight.shape, (self.rows, self.columns))
