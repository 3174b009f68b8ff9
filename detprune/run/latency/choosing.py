"""The widths of a latency budget: chosen by the table, measured, and chosen again where the table erred.

The time of a network does not depend on its values. So the chosen network can be timed before it is trained, which
takes seconds, and the budget holds although the table predicts with an error.
"""

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.latency_table import LatencyTable, read_table
from detprune.errors import InputError
from detprune.files import dump_yaml_text
from detprune.files.atomic import atomic
from detprune.files.folders import user_cache
from detprune.latency_targets import LatencyTarget
from detprune.loggers import logger
from detprune.run.latency.profiling import Subject, empty_table, fill
from detprune.run.latency.timing import check_target, network_times

LOGGER = logger(__name__)

_ATTEMPTS = 4
_CLOSE = (
    0.015  # difference of the measured share from the budget at which no other widths are tried
)
_FAR = 0.05  # at which the budget is refused


def measured_budget(
    model: nn.Module,
    channels: CoupledChannels,
    budget: Budget,
    *,
    table: Path | None = None,
    finish: Callable[[nn.Module], None] = lambda network: None,
    times: LatencyTable | None = None,
) -> Budget:
    """A latency budget with the times of its target, measured here; its target is a table then.

    Args:
        model: the network; it does not change.
        channels: its set, with example inputs.
        budget: with a latency.
        table: the file for the table; by default a new one in the user's cache folder, so that budgets keep their own.
        finish: updates what a network stores of its widths, after channels were removed.
        times: the result of ``measured_times`` for the same network and target, where several budgets share it.

    Raises:
        InputError: a target that is not here, a latency below what the layers that cannot shrink take, or a table
            of another network.
    """
    if budget.latency is None:
        raise InputError("the budget has no latency, so that nothing has to be measured")
    path = table or user_cache() / "latency" / f"table_{uuid.uuid4().hex}.yaml"
    target = budget.target or LatencyTarget()
    if target.table is not None:
        chosen = _of_given(read_table(Path(target.table)), model, channels, budget)
    else:
        subject = Subject.on(target, model, channels, budget, finish)
        filled = times or _filled(subject, target)
        chosen = _adjusted(filled, subject, budget, target, path)
    write_table(chosen, path)
    return with_table(budget, path)


def measured_times(
    model: nn.Module,
    channels: CoupledChannels,
    budget: Budget,
    finish: Callable[[nn.Module], None] = lambda network: None,
) -> LatencyTable | None:
    """The times of layers and network on the target of a latency budget; None if that is a table already.

    Raises:
        InputError: a target that is not here.
    """
    target = budget.target or LatencyTarget()
    if target.table is not None:
        return None
    return _filled(Subject.on(target, model, channels, budget, finish), target)


def _filled(subject: Subject, target: LatencyTarget) -> LatencyTable:
    check_target(target)
    LOGGER.info("latency: measuring the layers on %s", target)
    return fill(empty_table(subject, target), subject, target)


def with_table(budget: Budget, path: Path) -> Budget:
    """The budget with a table as its target."""
    return dataclasses.replace(budget, target=LatencyTarget(table=str(path.absolute())))


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(dump_yaml_text(table.as_dict()), encoding="utf-8")


def _of_given(
    table: LatencyTable, model: nn.Module, channels: CoupledChannels, budget: Budget
) -> LatencyTable:
    _, predicted, _ = channels.latency_of(model, budget)
    found = {"asked": float(budget.latency or 0), "predicted": round(predicted, 4)}
    return dataclasses.replace(table, chosen=found)


def _adjusted(
    table: LatencyTable, subject: Subject, budget: Budget, target: LatencyTarget, path: Path
) -> LatencyTable:
    """The table, adjusted until the widths that are chosen by it take the time of the budget.

    Raises:
        InputError: no widths come near the budget.
    """
    asked = float(budget.latency or 0)
    best: LatencyTable | None = None
    error = float("inf")
    points = [(1.0, 1.0)]  # predicted and measured
    dense, inputs, last = subject.deployed(), subject.inputs, None
    for _ in range(_ATTEMPTS):
        write_table(table, path)
        bound, predicted, least = subject.channels.latency_of(
            subject.model, with_table(budget, path)
        )
        if last is not None and bound.counts.tolist() == last:
            break
        last = bound.counts.tolist()
        real = network_times(target, [dense, subject.without_channels(bound)], inputs).ratios()[1]
        LOGGER.info("latency: %.3f predicted, %.3f measured", predicted, real)
        if abs(real - asked) < error:
            error = abs(real - asked)
            found = {"asked": asked, "predicted": round(predicted, 4), "measured": round(real, 4)}
            best = dataclasses.replace(table, chosen=found)
        if error <= _CLOSE or predicted >= 1 or least >= 1:
            break
        points.append((predicted, real))
        aim = max(_interpolated(points, asked), least * (1 + 1e-9))
        table = dataclasses.replace(table, adjust=(1 - asked) / (1 - aim))
    if best is None:
        raise InputError(f"no widths were found for a latency of {asked:g}")
    if error > _FAR and best.chosen is not None:
        raise InputError(
            f"budget: latency is {asked:g}, but the nearest that was measured with any widths is "
            f"{best.chosen['measured']:.3f}; ask for that, use another round_to, or let more layers shrink"
        )
    return best


def _interpolated(points: Sequence[tuple[float, float]], asked: float) -> float:
    """The predicted share at which the measured one would be as asked, by a line through the nearest points."""
    above = min((own for own in points if own[1] >= asked), key=lambda own: own[1])
    below = max((own for own in points if own[1] < asked), key=lambda own: own[1], default=None)
    if below is None:
        faster = [own for own in points if own[1] < 1]
        if not faster:
            return asked * min(own[0] for own in points)
        above, below = (1.0, 1.0), min(faster, key=lambda own: own[1])
    slope = (above[0] - below[0]) / (above[1] - below[1])
    return below[0] + slope * (asked - below[1])
