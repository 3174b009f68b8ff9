"""``metrics.jsonl``: one line for each epoch, outer iteration, check and stage of a run, in order of time.

A last line that a kill cut off is dropped silently. Other damaged lines are never lost silently: a reader leaves them
out and says so, and code that would have to rewrite the file refuses.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from detprune.files import read_bytes
from detprune.methods import OuterIteration
from detprune.run.parsing import parse

FILE = "metrics.jsonl"

TrainingStage = Literal["dense", "constrained", "retrain"]


@dataclass
class Epoch:
    """One epoch of a stage, with the metric of the live weights after it.

    Attributes:
        stage: name of the stage.
        epoch, epochs: number of the epoch, from 1, and number of epochs of the stage.
        train_loss, losses: mean training loss over the epoch, and its parts if the framework names them.
        lr: learning rate of the first parameter group at the start of the epoch.
        metric, metric_name: the metric measured after the epoch, and its name; without a name, the headline metric.
        seconds: duration.
    """

    event: ClassVar[str] = "epoch"
    stage: str
    epoch: int
    epochs: int | None = None
    train_loss: float | None = None
    losses: dict[str, float] | None = None
    lr: float | None = None
    metric: float | None = None
    metric_name: str | None = None
    seconds: float | None = None


@dataclass
class Outer(OuterIteration):
    """One outer iteration of the constrained training, and the number of the epoch in which it ended."""

    event: ClassVar[str] = "outer"
    task_loss: float | None = None
    stage: str = "constrained"
    epoch: int | None = None


@dataclass
class HardPruneCheck:
    """The metric of a hard-pruned copy, measured during constrained training."""

    event: ClassVar[str] = "hard_prune_check"
    epoch: int
    metric: float | None
    stage: str = "constrained"


@dataclass
class StageEnd:
    """The end of a stage, with the headline metric after it."""

    event: ClassVar[str] = "stage"
    stage: str
    metric: float | None = None


Event = Epoch | Outer | HardPruneCheck | StageEnd
_KINDS: dict[str, type[Event]] = {
    kind.event: kind for kind in (Epoch, Outer, HardPruneCheck, StageEnd)
}


def line(event: Event) -> str:
    """The event as a line of the file."""
    return json.dumps({"event": event.event, **vars(event)}) + "\n"


@dataclass(frozen=True)
class Lines:
    """The lines of a file of events.

    Attributes:
        values: number of a complete line, from 1 → its plain values, for later versions may write unknown keys.
        damaged: number of a damaged line → its text; without a last line that was cut off.
    """

    values: dict[int, dict[str, Any]]
    damaged: dict[int, str]


def read_lines(file: Path, way_out: str) -> Lines:
    """Read a file of events; a file that does not exist has no events.

    Raises:
        InputError: the file cannot be read at all.
    """
    values: dict[int, dict[str, Any]] = {}
    damaged: dict[int, str] = {}
    if not os.path.lexists(file):
        return Lines(values, damaged)
    # a kill may cut a multi-byte character in two
    content = read_bytes(file, way_out).decode("utf-8", errors="replace")
    texts = content.rstrip("\n").split("\n")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            if number < len(texts):
                damaged[number] = text
            continue
        if isinstance(value, dict):
            values[number] = value
        else:
            damaged[number] = text
    return Lines(values, damaged)


def parsed(number: int, value: dict[str, Any], file: Path) -> Event | None:
    """The event on a line; None for an event that only a later version knows.

    Raises:
        InputError: values that cannot be used.
    """
    kind = _KINDS.get(str(value.get("event", "")))
    if kind is None:
        return None
    way_out = "delete the line, or the file to report without curves"
    return parse(kind, value, f"{str(file)!r} line {number}", way_out)
