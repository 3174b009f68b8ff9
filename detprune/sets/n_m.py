"""n:m sparsity (Mishra et al. 2021, "Accelerating sparse deep neural networks")."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Size, Tensor, nn

from detprune.errors import InputError
from detprune.projections import n_of_m_mask
from detprune.sets.base import SparsitySet
from detprune.values import check_whole


@dataclass(frozen=True)
class NM(SparsitySet):
    """n:m sparsity: of every m consecutive input channels (dim 1), at most n weights are nonzero.

    The groups lie at one output and kernel position, as hardware for 2:4 sparsity reads them, TensorRT among it
    (along C of a kernel KCRS). ONNX files keep this layout. Without ``include`` weights that cannot be grouped so stay
    dense: of three input channels, of depthwise and of transposed convolutions. Conv1D of transformers (GPT-2), which
    is transposed too, is refused. The projection keeps the n weights of largest magnitude in every group, ties to the
    lowest index. Source: Mishra et al. 2021.

    Attributes:
        n: weights that are kept in every group.
        m: consecutive input channels in a group.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        for name in ("n", "m"):
            allowed = "a whole number, 1 or more (2:4 is n=2, m=4)"
            check_whole(f"n:m: {name}", getattr(self, name), allowed)
        if not 1 <= self.n <= self.m:
            raise InputError(f"n:m is {self.n}:{self.m}, allowed is 1 ≤ n ≤ m, for example 2:4")

    @property
    def own_sparsity(self) -> float:
        """The sparsity of the structure, 1 − n/m."""
        return 1 - self.n / self.m

    def problem_with(self, shape: Size) -> str | None:
        """Refuse a weight whose number of input channels is no multiple of m."""
        problem = super().problem_with(shape)
        if problem is None and shape[1] % self.m:
            return f"has {shape[1]} input channels, which is no multiple of {self.m}"
        return problem

    def problem_in(self, module: nn.Module) -> str | None:
        """Refuse a transposed convolution, or Conv1D of transformers, whose dim 1 holds output channels."""
        if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            return "is of a transposed convolution, whose dim 1 holds its output channels"
        if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # GPT-2's linear layer
            return "is of a Conv1D of transformers, whose dim 1 holds its output channels"
        return None

    def check_sparsity(self, sparsity: float | None) -> float:
        """Refuse any sparsity but the structure's own."""
        if (
            sparsity is not None
            and abs(super().check_sparsity(sparsity) - self.own_sparsity) > 1e-6
        ):
            raise InputError(
                f"sparsity is {sparsity}, but {self.n}:{self.m} always has {self.own_sparsity:g}; "
                f"leave it out, or use compression={self.m / self.n:g}"
            )
        return self.own_sparsity

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Keep n of every group of m; groups are ranked by themselves, so tensors share no count."""
        return [n_of_m_mask(weight, self.n, self.m) for weight in weights]
