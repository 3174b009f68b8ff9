"""How much may be kept: the target, over which tensors, and how it is spread over them."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Size

from detprune.errors import InputError, nearest, unknown
from detprune.values import check_names, check_number

Allocation = Literal["uniform", "erk"] | Mapping[str, float]


@dataclass(frozen=True)
class Budget:
    """A sparsity target for the pruned tensors together.

    Attributes:
        sparsity: share of the weights that becomes zero, in [0, 1); give this or ``compression``.
        compression: weights before / nonzero weights after, ≥ 1; 10 is the same as sparsity 0.9.
        scope: ``"layer"``: every tensor has its own count; ``"global"``: one count for all of them,
            which are ranked together. For structured sets that count is one of groups (filters,
            blocks, …), whatever their sizes: this is what makes the joint projection exact.
        allocation: how scope ``"layer"`` spreads the target: ``"uniform"``; ``"erk"``
            (Erdős-Rényi-kernel: Mocanu et al. 2018; Evci et al. 2020, RigL, appendix A), which leaves small layers
            denser; or a mapping of name patterns to sparsities, first match first. Tensors that no
            pattern matches get the target, and stay dense where none is given.
        include: name patterns (``"layer*.conv?"``, as in fnmatch) of the weights to prune; without
            it, the weights of all convolution and linear modules.
        exclude: name patterns of weights to leave dense.
    """

    sparsity: float | None = None
    compression: float | None = None
    scope: Literal["layer", "global"] = "layer"
    allocation: Allocation = "uniform"
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.sparsity is not None and self.compression is not None:
            raise InputError(
                f"both sparsity={self.sparsity} and compression={self.compression} are given; "
                "they are two ways to say the same: keep one of them"
            )
        if self.sparsity is not None:
            _check_sparsity("sparsity", self.sparsity)
        if self.compression is not None:
            allowed = "1 or more (10 keeps every tenth weight)"
            check_number("compression", self.compression, allowed, lambda times: times >= 1)
        if self.scope not in ("layer", "global"):
            raise unknown("scope", str(self.scope), ("layer", "global"))
        for field in ("include", "exclude"):
            patterns = getattr(self, field)
            if patterns is None and field == "exclude":
                patterns = ()
            if patterns is not None:  # a list and a tuple of the same patterns are the same budget
                object.__setattr__(self, field, check_names(field, patterns))
        if isinstance(self.allocation, Mapping):
            check_names("allocation", self.allocation)
            for pattern, sparsity in self.allocation.items():
                _check_sparsity(f"allocation[{pattern!r}]", sparsity)
        elif self.allocation not in ("uniform", "erk"):
            raise unknown("allocation", str(self.allocation), ("uniform", "erk"))
        if self.scope == "global" and self.allocation != "uniform":
            raise InputError(
                f"scope is 'global', which ranks all tensors together, but allocation is "
                f"{self.allocation!r}, which sets them apart; leave allocation out, or use scope='layer'"
            )

    @property
    def target(self) -> float | None:
        """The target as a sparsity, however it was given."""
        return self.sparsity if self.compression is None else 1 - 1 / float(self.compression)

    def allocate(self, shapes: Mapping[str, Size]) -> dict[str, float]:
        """Sparsity of every tensor that is to be pruned; those left dense are not in the result.

        Args:
            shapes: name → shape of the selected weights.

        Raises:
            InputError: an allocation pattern that matches nothing, or no target at all.
        """
        if isinstance(self.allocation, Mapping):
            return self._allocate_by_name(shapes, self.allocation)
        if self.target is None:
            raise InputError(
                "the budget has no target; give sparsity=0.9, compression=10, or an allocation by name"
            )
        if self.allocation == "erk":
            return _erdos_renyi_kernel(shapes, 1 - self.target)
        return dict.fromkeys(shapes, self.target)

    def _allocate_by_name(
        self, shapes: Mapping[str, Size], patterns: Mapping[str, float]
    ) -> dict[str, float]:
        for pattern in patterns:
            matching(pattern, shapes, "allocation")
        allocated = {}
        for name in shapes:
            own = [s for pattern, s in patterns.items() if matches(name, pattern)]
            if own:
                allocated[name] = own[0]
            elif self.target is not None:
                allocated[name] = self.target
        return allocated


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a weight, with or without its trailing ``.weight``."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(
        name.removesuffix(".weight"), pattern
    )


def matching(pattern: str, names: Iterable[str], field: str) -> list[str]:
    """Names that a pattern matches; an error where there are none."""
    names = list(names)
    found = [name for name in names if matches(name, pattern)]
    if not found:
        some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise InputError(
            f"{field}: the pattern {pattern!r} matches no weight{nearest(pattern, names)}; "
            f"names look like {some}"
        )
    return found


def _check_sparsity(what: str, sparsity: object) -> None:
    allowed = "0 ≤ sparsity < 1 (0.9 zeroes 90 %)"
    check_number(what, sparsity, allowed, lambda share: 0 <= share < 1)


def _erdos_renyi_kernel(shapes: Mapping[str, Size], density: float) -> dict[str, float]:
    """Densities proportional to (Σ dims)/(Π dims), capped at 1, with the target met in total."""
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    numel = {name: shape.numel() for name, shape in shapes.items()}
    budget = density * sum(numel.values())
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        left = budget - sum(numel[name] for name in dense)
        scale = left / sum(raw[name] * numel[name] for name in rest) if rest else 0.0
        over = {name for name in rest if scale * raw[name] > 1}
        if not over:
            break
        dense |= over
    return {name: 0.0 if name in dense else 1 - scale * raw[name] for name in shapes}
