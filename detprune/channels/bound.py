"""The sparsity set of whole channels of one network: every family of channel groups has its own count."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Size, Tensor

from detprune.channels.groups import ChannelGroups
from detprune.channels.labels import Row
from detprune.channels.removal import Kept
from detprune.errors import InputError
from detprune.projections import slice_norms, tree_sum
from detprune.sets import SparsitySet


class _Indices(NamedTuple):
    """Index tensors of the groups, on one device.

    Attributes:
        owners: (groups + 1, most entries of a group): positions in the concatenated squared norms of all members;
            the last position holds a zero. The last row belongs to no group.
        families: (families, most groups of a family): numbers of the groups, padded with the number of no group.
        spread: for every member, the number of the group of each index.
    """

    owners: Tensor
    families: Tensor
    spread: list[Tensor]


class BoundChannels(SparsitySet):
    """S = {Z : every family of channel groups has at most its count of nonzero groups}, for one network.

    Π_S(W) = argmin ‖W − Z‖ over Z ∈ S keeps in each family the groups of largest l2 norm, as many as its count, ties
    to the lowest number. This is exact, because the groups partition the weights.

    Args:
        groups: the groups of the network.
        counts: groups that each tie keeps in each of its families, (ties,).

    Attributes:
        sizes, kept: groups that every family has, and keeps, (families,).
    """

    def __init__(self, groups: ChannelGroups, counts: Row) -> None:
        self.groups = groups
        self.counts = counts
        self.sizes = np.array([len(family.groups) for family in groups.families])
        self.kept: Row = counts[[family.tie for family in groups.families]]
        self._indices: dict[torch.device, _Indices] = {}

    def __repr__(self) -> str:
        return "CoupledChannels()"

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_indices": {}}

    @property
    def names(self) -> list[str]:
        """Names of the parameters that the groups consist of, in the order in which ``masks`` takes them."""
        return [member.name for member in self.groups.members]

    def sparsity(self, number: int) -> float:
        """Share of a member's entries that becomes zero."""
        row = self.groups.members[number].groups
        return self.gone(row) / len(row)

    def gone(self, row: Row) -> float:
        """Number of channels that are removed of a row of groups."""
        return float(self._shares_gone[row].sum())

    @cached_property
    def _shares_gone(self) -> NDArray[np.float64]:
        """For every group, the share of its family's groups that is removed, (groups + 1,).

        The last entry is 0, for channels that always stay.
        """
        shares = np.append(1 - self.kept / self.sizes, 0.0)
        return np.asarray(shares[self.groups.family_of_group])

    def problem_with(self, shape: Size) -> str | None:
        """Accept every shape, because biases and scales are members too."""
        return None

    def supports(self, weights: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Supports with every family at its count; ``sparsities`` are ignored, for they follow from the counts."""
        return self.supports_at(weights, 1.0)

    def masks_at(
        self, weights: Sequence[Tensor], sparsities: Sequence[float], jointly: bool, share: float
    ) -> list[Tensor]:
        """Supports at a share of the groups to be removed, for a ramp."""
        return self.supports_at(weights, share)

    def masks(
        self, weights: Sequence[Tensor], sparsities: Sequence[float], jointly: bool
    ) -> list[Tensor]:
        """Supports of all members together."""
        return self.supports_at(weights, 1.0)

    def supports_at(self, values: Sequence[Tensor], share: float) -> list[Tensor]:
        """Boolean supports of all members, without ``share`` of the groups to be removed."""
        return self.spread(values, self.chosen(self.squared_norms(values), share))

    def spread(self, values: Sequence[Tensor], chosen: Tensor) -> list[Tensor]:
        """Boolean supports of all members, from the groups that are kept."""
        indices = self._on(values[0].device)
        return [
            chosen[spread]
            .view([-1 if dim == member.dim else 1 for dim in range(value.dim())])
            .expand_as(value)
            .contiguous()
            for value, member, spread in zip(
                values, self.groups.members, indices.spread, strict=True
            )
        ]

    def squared_norms(self, values: Sequence[Tensor]) -> Tensor:
        """Squared l2 norm of every group, (groups,), in float64."""
        if len(values) != len(self.groups.members):
            raise InputError(
                f"{self!r} takes all of its {len(self.groups.members)} tensors together, but got {len(values)}"
            )
        norms = [
            slice_norms(value, (member.dim,))
            for value, member in zip(values, self.groups.members, strict=True)
        ]
        norms.append(norms[0].new_zeros(1))
        return tree_sum(torch.cat(norms)[self._on(values[0].device).owners])[:-1]

    def chosen(self, norms: Tensor, share: float = 1.0) -> Tensor:
        """Which groups are kept, boolean, (groups + 1,); the last entry stands for channels that always stay."""
        families = self._on(norms.device).families
        gone = self.sizes - self.kept
        counts = torch.from_numpy(self.sizes - np.floor(gone * share + 0.5).astype(np.int64))
        padded = torch.cat([norms, norms.new_full((1,), -math.inf)])[families]
        order = padded.sort(dim=1, descending=True, stable=True).indices
        ranks = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        chosen = torch.ones(self.groups.count + 1, dtype=torch.bool, device=norms.device)
        chosen[families.ravel()] = (ranks < counts.to(norms.device)[:, None]).ravel()
        chosen[-1] = True
        return chosen

    def alive(self, masks: Sequence[Tensor]) -> Tensor:
        """Which groups the supports of all members keep, boolean, (groups + 1,)."""
        chosen = torch.ones(self.groups.count + 1, dtype=torch.bool)
        for mask, member in zip(masks, self.groups.members, strict=True):
            others = [dim for dim in range(mask.dim()) if dim != member.dim]
            entries = mask.any(dim=others) if others else mask
            chosen[torch.from_numpy(member.groups)[~entries.cpu()]] = False
        chosen[-1] = True
        return chosen

    def with_counts(self, counts: Sequence[int]) -> "BoundChannels":
        """The set with other numbers of groups kept.

        Raises:
            InputError: numbers that are not those of this network.
        """
        most = self.groups.sizes.tolist()
        if len(counts) != len(most) or any(
            not 1 <= n <= m for n, m in zip(counts, most, strict=True)
        ):
            raise InputError(
                f"the saved numbers of channels, {list(counts)[:8]}…, are not those of this network, which has "
                f"{most[:8]}…; use the network, include and exclude that they were saved with"
            )
        return BoundChannels(self.groups, np.array(counts, dtype=np.int64))

    def kept_indices(self, chosen: Tensor) -> Kept:
        """Kept indices of every tensor that has a dimension of channels."""
        alive = chosen.cpu().numpy()
        kept: dict[str, dict[int, Tensor]] = {}
        for (name, dim), row in self.groups.slices.items():
            if not alive[row].all():
                kept.setdefault(name, {})[dim] = torch.from_numpy(np.flatnonzero(alive[row]))
        return kept

    def _on(self, device: torch.device) -> _Indices:
        if device not in self._indices:
            self._indices[device] = self._make_indices(device)
        return self._indices[device]

    def _make_indices(self, device: torch.device) -> _Indices:
        members, groups = self.groups.members, self.groups.count
        row = np.concatenate([member.groups for member in members])
        place = np.flatnonzero(row >= 0)
        owner = row[place]
        order = np.argsort(owner, kind="stable")
        owner, place = owner[order], place[order]
        sizes = np.bincount(owner, minlength=groups + 1)
        column = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        owners = np.full((groups + 1, max(1, int(sizes.max()))), len(row), dtype=np.int64)
        owners[owner, column] = place
        families = np.full((len(self.sizes), int(self.sizes.max())), groups, dtype=np.int64)
        for number, family in enumerate(self.groups.families):
            families[number, : len(family.groups)] = family.groups
        return _Indices(
            torch.from_numpy(owners).to(device),
            torch.from_numpy(families).to(device),
            [torch.from_numpy(member.groups).to(device) for member in members],
        )


def kept_indices(sparsity_set: SparsitySet, masks: Mapping[str, Tensor] | None, what: str) -> Kept:
    """Indices of the channels of every tensor that stay.

    Args:
        sparsity_set: the set that was used for pruning.
        masks: supports after hard pruning by name; None before it.
        what: the call that asks, for the errors.

    Raises:
        InputError: another set than one of whole channels, or no hard pruning yet.
    """
    if not isinstance(sparsity_set, BoundChannels):
        raise InputError(
            f"{what} removes whole channels, but {sparsity_set!r} leaves single zeros in all of them; prune "
            "with CoupledChannels(example_inputs)"
        )
    if masks is None:
        raise InputError(f"{what} removes the channels that are zero; call hard_prune() first")
    return sparsity_set.kept_indices(sparsity_set.alive(list(masks.values())))
