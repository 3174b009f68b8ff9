"""The budget: the target sparsity, the tensors that it holds for, and its spread over them."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from torch import Size

from detprune.errors import InputError, nearest, unknown
from detprune.latency_targets import LatencyTarget
from detprune.values import check_names, check_number, make_plain

Allocation = Literal["uniform", "erk", "global"] | Mapping[str, float]


@dataclass(frozen=True)
class Budget:
    """A sparsity target for the pruned tensors together; for whole channels, the share of the network that is left.

    Give one of ``sparsity``, ``compression``, ``macs``, ``parameters`` and ``latency``.

    Attributes:
        sparsity: share of the weights that becomes zero, in [0, 1).
        compression: weights before / nonzero weights after, ≥ 1; 10 is the same as sparsity 0.9.
        macs, parameters: for ``CoupledChannels``: share of the dense network's multiply-accumulate operations, or
            of its parameters, that is left, in (0, 1].
        latency: for ``CoupledChannels``: share of the dense network's time on ``target`` that is left, in (0, 1].
        target: where the time counts; by default ONNX Runtime on one thread of this machine's processor.
        scope: ``"layer"``: every tensor has its own count; ``"global"``: all tensors are ranked together
            and share one count. For structured sets it is a count of groups (filters, blocks, …), whatever
            their sizes; only so is the joint projection exact.
        allocation: how scope ``"layer"`` spreads the target: ``"uniform"``; ``"erk"``
            (Erdős-Rényi-kernel: Mocanu et al. 2018; Evci et al. 2020, RigL, appendix A), which leaves small layers
            denser; or a mapping of name patterns to sparsities, of which the first match counts. Tensors
            that no pattern matches get the target, and stay dense if there is none. For
            ``CoupledChannels``: ``"uniform"``, the same share of channels everywhere; ``"global"``, the
            channels with the least loss for their cost are removed; or a mapping of name patterns to
            shares of channels that are removed.
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
    macs: float | None = field(default=None, kw_only=True)
    parameters: float | None = field(default=None, kw_only=True)
    latency: float | None = field(default=None, kw_only=True)
    target: LatencyTarget | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        targets = ("sparsity", "compression", "macs", "parameters", "latency")
        given = [name for name in targets if getattr(self, name) is not None]
        if len(given) > 1:
            both = " and ".join(f"{name}={getattr(self, name)}" for name in given)
            raise InputError(f"both {both} are given; the budget has one target: keep one of them")
        if self.sparsity is not None:
            _check_sparsity("sparsity", self.sparsity)
        if self.compression is not None:
            allowed = "1 or more (10 keeps every tenth weight)"
            check_number("compression", self.compression, allowed, lambda times: times >= 1)
        self._check_target()
        for name in ("macs", "parameters", "latency"):
            if getattr(self, name) is not None:
                allowed = "a number above 0, up to 1 (0.5 leaves half of them)"
                check_number(name, getattr(self, name), allowed, lambda share: 0 < share <= 1)
        make_plain(self)
        if self.scope not in ("layer", "global"):
            raise unknown("scope", str(self.scope), ("layer", "global"))
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            if patterns is None and name == "exclude":
                patterns = ()
            if patterns is not None:  # a list and a tuple of the same patterns are the same budget
                object.__setattr__(self, name, check_names(name, patterns))
        if isinstance(self.allocation, Mapping):
            check_names("allocation", self.allocation)
            for pattern, sparsity in self.allocation.items():
                _check_sparsity(f"allocation[{pattern!r}]", sparsity)
        elif self.allocation not in ("uniform", "erk", "global"):
            raise unknown("allocation", str(self.allocation), ("uniform", "erk", "global"))
        if self.scope == "global" and self.allocation != "uniform":
            raise InputError(
                f"scope is 'global', which ranks all tensors together, but allocation is "
                f"{self.allocation!r}, which sets them apart; leave allocation out, or use scope='layer'"
            )

    def _check_target(self) -> None:
        """Read a target that is a mapping, and refuse one without a latency."""
        given: object = self.target
        if isinstance(given, Mapping):
            known = [f.name for f in fields(LatencyTarget)]
            for key in given:
                if key not in known:
                    raise unknown("key of target", str(key), known)
            given = LatencyTarget(**given)
            object.__setattr__(self, "target", given)
        if given is not None and not isinstance(given, LatencyTarget):
            raise InputError(
                f"target is {given!r}; write a mapping, for example {{device: cpu, runtime: onnxruntime}}"
            )
        if self.target is not None and self.latency is None:
            raise InputError("target says where a latency counts; give latency=0.5 with it")

    @property
    def pruned_share(self) -> float | None:
        """The target as a sparsity, whether it was given as sparsity or as compression."""
        return self.sparsity if self.compression is None else 1 - 1 / float(self.compression)

    def check_single_weights(self) -> None:
        """Refuse options that only whole channels have.

        Raises:
            InputError: a target that counts MACs, parameters or time, or an allocation by their cost.
        """
        whole = (self.macs, self.parameters, self.latency)
        if whole != (None, None, None) or self.allocation == "global":
            raise InputError(
                "macs, parameters, latency and allocation='global' count whole channels, which CoupledChannels() "
                "removes; use that set, or give sparsity=0.9 or compression=10"
            )

    def allocate(self, shapes: Mapping[str, Size]) -> dict[str, float]:
        """Sparsity of every tensor to be pruned; tensors that stay dense are not in the result.

        Args:
            shapes: name → shape of the selected weights.

        Raises:
            InputError: an allocation pattern that matches nothing, no target at all, or one without effect.
        """
        self.check_single_weights()
        if isinstance(self.allocation, Mapping):
            return self._allocate_by_name(shapes, self.allocation)
        if self.pruned_share is None:
            raise InputError(
                "the budget has no target; give sparsity=0.9, compression=10, or an allocation by name"
            )
        if self.allocation == "erk":
            return _erdos_renyi_kernel(shapes, 1 - self.pruned_share)
        return dict.fromkeys(shapes, self.pruned_share)

    def _allocate_by_name(
        self, shapes: Mapping[str, Size], patterns: Mapping[str, float]
    ) -> dict[str, float]:
        for pattern in patterns:
            matching(pattern, shapes, "allocation")
        allocated = {}
        of_target = 0
        for name in shapes:
            own = [s for pattern, s in patterns.items() if matches(name, pattern)]
            if own:
                allocated[name] = own[0]
            elif self.pruned_share is not None:
                allocated[name] = self.pruned_share
                of_target += 1
        if self.pruned_share is not None and not of_target:
            target = "sparsity" if self.compression is None else "compression"
            raise InputError(
                f"allocation names each of the {len(shapes)} weights to be pruned, so that {target}="
                f"{getattr(self, target)} has no effect; leave {target} out, or leave out the patterns of the weights "
                "that shall have it"
            )
        return allocated


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a weight, with or without its trailing ``.weight``."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(
        name.removesuffix(".weight"), pattern
    )


def matching(pattern: str, names: Iterable[str], field: str) -> list[str]:
    """Names that a pattern matches; an error if there are none."""
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
