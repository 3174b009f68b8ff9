"""``metrics.jsonl``: a line for each epoch, outer iteration, check and stage of a run, as they happen.

A line that a kill cut off at the end of the file is dropped without a word. Other damaged lines are never lost in
silence: who reads leaves them out and says so, and who would have to write the file anew refuses.
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
    """One epoch of a stage; ``metric`` is the summary's of the live weights, or ``metric_name``.

    Attributes:
        stage: of the run.
        epoch: its number, from 1, of ``epochs``.
        train_loss, losses: mean over the epoch, and its parts where the framework names them.
        lr: learning rate of the first group at its beginning.
        metric, metric_name: what was measured after it; without a name, the headline.
        seconds: that it took.
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
    """One outer iteration of the constrained training, and the epoch at whose end, or in which, it ended."""

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
    """A stage is finished; the headline metric after it."""

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
        values: of the whole ones, by number from 1; plain, for later versions may write more than is known here.
        damaged: the others, but for a last one that was cut off.
    """

    values: dict[int, dict[str, Any]]
    damaged: dict[int, str]


def read_lines(file: Path, way_out: str) -> Lines:
    """Read a file of events; where there is none, there are no events.

    Raises:
        InputError: the file cannot be read at all.
    """
    values: dict[int, dict[str, Any]] = {}
    damaged: dict[int, str] = {}
    if not os.path.lexists(file):
        return Lines(values, damaged)
    # a kill may also cut a character of several bytes in two
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
    """The event on a line; None for one that only a later version knows.

    Raises:
        InputError: values that cannot be used.
    """
    kind = _KINDS.get(str(value.get("event", "")))
    if kind is None:
        return None
    way_out = "delete the line, or the file to report without curves"
    return parse(kind, value, f"{str(file)!r} line {number}", way_out)
