"""Groups of weights that write one channel, and the families that they are ranked in.

A group is a class of coupled channels that can be removed. Groups that are written and read by the same tensors
make a family: they cost the same, and the projection ranks them against each other. Where a network cuts channels
into equal parts, the families of the parts are tied: they keep the same number of groups.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np

from detprune.channels.labels import Row
from detprune.channels.trace import Trace

ALL_OR_NONE = "go only all together, and a layer keeps at least one"


@dataclass(frozen=True)
class Member:
    """A dimension of a parameter whose indices are channels.

    Attributes:
        name, dim: name of the parameter, and the dimension.
        groups: number of the group of each index; −1 where the channel always stays.
    """

    name: str
    dim: int
    groups: Row


@dataclass(frozen=True)
class Family:
    """Groups that are ranked against each other.

    Attributes:
        name: name of the first weight that writes the groups.
        groups: numbers of the groups, in order.
        tie: number of the tie; families of one tie keep the same number of groups.
    """

    name: str
    groups: Row
    tie: int


@dataclass(frozen=True)
class ChannelGroups:
    """All groups of a network.

    Attributes:
        members: the parameters that a removed group sets to zero, in order of first use; the groups partition
            their weights.
        families: the families, in order of their first group.
        slices: (name, dim) → number of the group of each index, −1 where it always stays; for every tensor with
            a dimension of channels: members, readers, batch-norm statistics, gates.
        reasons: (name, dim) → reason why channels stay → number of these channels.
    """

    members: tuple[Member, ...]
    families: tuple[Family, ...]
    slices: dict[tuple[str, int], Row]
    reasons: dict[tuple[str, int], dict[str, int]]

    @cached_property
    def ties(self) -> list[list[int]]:
        """Numbers of the families of every tie."""
        ties: dict[int, list[int]] = defaultdict(list)
        for number, family in enumerate(self.families):
            ties[family.tie].append(number)
        return [ties[number] for number in sorted(ties)]

    @cached_property
    def sizes(self) -> Row:
        """Groups in each family of a tie, (ties,)."""
        return np.array([len(self.families[own[0]].groups) for own in self.ties], dtype=np.int64)

    @cached_property
    def family_of_group(self) -> Row:
        """Number of the family of every group, (groups + 1,); the last is −1, for channels that always stay."""
        numbers = np.full(self.count + 1, -1, dtype=np.int64)
        for number, family in enumerate(self.families):
            numbers[family.groups] = number
        return numbers

    @cached_property
    def tie_of_group(self) -> Row:
        """Number of the tie of every group, (groups + 1,); the last is −1, for channels that always stay."""
        ties = np.array([*(family.tie for family in self.families), -1], dtype=np.int64)
        return ties[self.family_of_group]

    def families_of(self, row: Row) -> list[int]:
        """Numbers of the families that have groups in a row, ascending."""
        found: list[int] = np.unique(self.family_of_group[row]).tolist()
        return [number for number in found if number >= 0]

    @property
    def count(self) -> int:
        """Number of groups."""
        return sum(len(family.groups) for family in self.families)


def channel_groups(record: Trace, keep: Callable[[str], str | None]) -> ChannelGroups:
    """Make groups and families from the record of a run.

    Args:
        record: the trace; this function freezes more of its labels.
        keep: gives for a parameter's name the reason why its channels have to stay, or None.
    """
    labels = record.labels
    _freeze_unusable(record, keep)
    roots, families, ties = _families(record)
    while (stuck := _stuck(record, roots, families)) is not None:
        labels.freeze(*stuck)
        roots, families, ties = _families(record)
    numbers = np.full(len(labels) + 1, -1, dtype=np.int64)
    order = sorted(root for members in families.values() for root in members)
    numbers[order] = np.arange(len(order))
    slices = {key: numbers[roots[row]] for key, row in record.slices.items()}
    members = tuple(
        Member(name, dim, slices[name, dim])
        for name, dim in record.written
        if (name, dim) in record.required and (slices[name, dim] >= 0).any()
    )
    named = []
    for signature, own in sorted(families.items(), key=lambda item: item[1][0]):
        written = [key for key in record.written if key in signature.keys]
        name = next((n for n, _ in written if record.tensors[n].dim() > 1), written[0][0])
        named.append(Family(name, numbers[np.array(own)], ties[signature]))
    return ChannelGroups(members, tuple(named), slices, _reasons(record))


def freeze_ties(record: Trace, groups: ChannelGroups, ties: Sequence[int], reason: str) -> None:
    """Freeze all channels of some ties; ``channel_groups`` of the record then leaves them out."""
    families = [number for tie in ties for number in groups.ties[tie]]
    own = np.concatenate([groups.families[number].groups for number in families])
    for key, row in groups.slices.items():
        if (inside := np.isin(row, own)).any():
            record.labels.freeze(record.slices[key][inside], reason)


@dataclass(frozen=True)
class _Signature:
    """Key of a family: the tensors that write and read a class of channels, how often, and its parts of chunks."""

    keys: frozenset[tuple[str, int]]
    counts: frozenset[tuple[object, int]]


_Families = dict[_Signature, list[int]]


def _freeze_unusable(record: Trace, keep: Callable[[str], str | None]) -> None:
    labels = record.labels
    read = {labels.find(label) for row in record.read for label in np.unique(row).tolist()}
    zeroed: set[int] = set()
    for name, dim in record.written:
        row = record.slices[name, dim]
        unread = np.array([label for label in row.tolist() if labels.find(label) not in read])
        if len(unread):
            labels.freeze(unread, "is read by no convolution or linear layer")
        if (reason := keep(name)) is not None:
            labels.freeze(row, reason)
        if (name, dim) in record.required:
            zeroed.update(labels.find(label) for label in row.tolist())
    for row in record.slices.values():
        lacking = [label for label in row.tolist() if labels.find(label) not in zeroed]
        labels.freeze(np.array(lacking, dtype=np.int64), "is written by no weight")


def _families(record: Trace) -> tuple[Row, _Families, dict[_Signature, int]]:
    """Representative labels, the removable classes by signature, and the tie of every signature."""
    labels = record.labels
    roots = labels.roots()
    marks: dict[int, Counter[object]] = defaultdict(Counter)
    for key, row in record.slices.items():
        for root in roots[row].tolist():
            marks[root][key] += 1
    for number, parts in enumerate(record.chunks):
        for part, row in enumerate(parts):
            for root in roots[row].tolist():
                marks[root][number, part] += 1
    families: _Families = defaultdict(list)
    for root in sorted(marks):
        if labels.reason(root) is None:
            own = marks[root]
            keys = frozenset(key for key in own if key in record.slices)
            families[_Signature(keys, frozenset(own.items()))].append(root)
    return roots, dict(families), _ties(record, roots, families)


def _family_of(families: _Families) -> dict[int, _Signature]:
    return {root: signature for signature, own in families.items() for root in own}


def _ties(record: Trace, roots: Row, families: _Families) -> dict[_Signature, int]:
    ties = dict(zip(families, count(), strict=False))
    family_of = _family_of(families)
    for parts in record.chunks:
        tied = {
            family_of[root] for row in parts for root in roots[row].tolist() if root in family_of
        }
        numbers = {ties[signature] for signature in tied}
        for signature, number in ties.items():
            if number in numbers:
                ties[signature] = min(numbers)
    dense = {number: place for place, number in enumerate(sorted(set(ties.values())))}
    return {signature: dense[number] for signature, number in ties.items()}


def _stuck(record: Trace, roots: Row, families: _Families) -> tuple[Row, str] | None:
    """Labels of channels that cannot be removed one by one, and the reason."""
    lone = [own[0] for own in families.values() if len(own) == 1]
    if lone:
        return np.array(lone, dtype=np.int64), ALL_OR_NONE
    row = _unequal_chunk(record, roots, families)
    return None if row is None else (row, "is cut into parts that are not alike")


def _unequal_chunk(record: Trace, roots: Row, families: _Families) -> Row | None:
    """Labels of a chunk whose parts would become unequal although tied families keep the same number of groups."""
    family_of = _family_of(families)
    for parts in record.chunks:
        contents = []
        for row in parts:
            own = roots[row].tolist()
            inside = Counter(family_of[root] for root in own if root in family_of)
            contents.append(
                (
                    sum(root not in family_of for root in own),
                    sorted((n, len(families[signature])) for signature, n in inside.items()),
                )
            )
        movable = any(inside for _, inside in contents)
        several = any(len(inside) > 1 for _, inside in contents)
        same = all(_shared(parts[0], row, roots) for row in parts)
        if movable and not same and (several or any(c != contents[0] for c in contents)):
            return np.concatenate(parts)
    return None


def _shared(one: Row, other: Row, roots: Row) -> bool:
    """Whether two parts hold the same classes equally often, so that they always stay equal."""
    return Counter(roots[one].tolist()) == Counter(roots[other].tolist())


def _reasons(record: Trace) -> dict[tuple[str, int], dict[str, int]]:
    reasons = {}
    for name, dim in record.written:
        if record.tensors[name].dim() > 1:
            found = [record.labels.reason(label) for label in record.slices[name, dim].tolist()]
            reasons[name, dim] = dict(Counter(reason for reason in found if reason is not None))
    return reasons
