"""Reads what a run left in its directory; the report knows a run through this module alone."""

import json
import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detprune.errors import InputError
from detprune.files import read_bytes, read_json, read_text
from detprune.run.measuring import Measurement

SUMMARY = "summary.json"
METRICS = "metrics.jsonl"
RECIPE = "recipe.yaml"
DENSE_CHECKPOINT = "checkpoints/dense.pt"
FINAL_CHECKPOINT = "checkpoints/final.pt"


class _Record(BaseModel):
    # Later versions may write more keys than this one reads. No protected namespaces, because
    # `model_compression` is a plain field here.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Layer(_Record):
    """One weight tensor of the model, as `summary.json` lists it."""

    name: str
    shape: tuple[int, ...]
    numel: int
    nonzero: int
    pruned: bool

    @property
    def kept(self) -> float:
        """Share of the weights that is not zero."""
        return self.nonzero / self.numel if self.numel else 1.0


class Verified(_Record):
    """What was found when the final checkpoint was read back and measured."""

    path: str
    nonzero: int | None
    metric: float | None


class StageMetrics(_Record):
    """Every metric that was measured after each stage, by name, the headline metric among them."""

    dense: dict[str, float | None] = {}
    hard_pruned: dict[str, float | None] = {}
    final: dict[str, float | None] = {}


class Size(_Record):
    """What a network costs: multiply-accumulate operations for one input, and parameters."""

    macs: float
    parameters: float


class Removal(_Record):
    """A network before and after channels were removed; `difference` of the outputs, relative."""

    dense: Size
    small: Size
    difference: float


class Summary(_Record):
    """`summary.json`. A number that was not measured is null; only a key with a default may lack."""

    task: str
    model: str
    data: str
    method: str
    sparsity_set: str = Field(alias="set")
    metric: str
    dense: float | None
    hard_pruned: float | None
    final: float | None
    compression: float
    sparsity: float
    model_compression: float
    model_sparsity: float
    layers: tuple[Layer, ...]
    epochs: dict[str, int | None]
    seconds: dict[str, float | None]
    seed: int | None
    versions: dict[str, str]
    verified: Verified | None
    command: str | None
    metrics: StageMetrics | None = None
    removal: Removal | None = None
    measured: Measurement | None = None
    notes: tuple[str, ...] = ()


class Epoch(_Record):
    """One epoch of one stage; `metric` is the summary's of the live weights, or `metric_name`."""

    stage: str
    epoch: int
    train_loss: float | None = None
    metric: float | None = None
    metric_name: str | None = None
    seconds: float | None = None


class Outer(_Record):
    """One outer iteration of the constrained training."""

    k: int
    residual_norm: float | None = None
    relative_residual: float | None = None
    target_change: float | None = None
    step_size: float | None = None
    rho: float | None = None
    pull: float | None = None
    condition_3: bool | None = None
    condition_8: bool | None = None


class HardPruneCheck(_Record):
    """The metric of a hard-pruned copy, measured during constrained training."""

    epoch: int
    metric: float | None


@dataclass(frozen=True)
class Run:
    """A finished run as its files describe it."""

    path: Path
    summary: Summary
    epochs: dict[str, list[Epoch]] = field(default_factory=dict)
    outer: list[Outer] = field(default_factory=list)
    checks: list[HardPruneCheck] = field(default_factory=list)
    recipe: str | None = None
    has_metrics: bool = False
    damaged_lines: tuple[int, ...] = ()

    @property
    def pruned(self) -> list[Layer]:
        """The layers that were pruned, in the order of the model."""
        return [layer for layer in self.summary.layers if layer.pruned]


def read_run(path: Path) -> Run:
    """Read `summary.json`, `metrics.jsonl` and `recipe.yaml` of a run directory."""
    summary = _read_summary(path)
    events, damaged = _read_events(path / METRICS)
    epochs: dict[str, list[Epoch]] = {}
    for epoch in _latest(events, Epoch, lambda e: (e.stage, e.epoch)):
        epochs.setdefault(epoch.stage, []).append(epoch)
    for stage in epochs.values():
        stage.sort(key=lambda e: e.epoch)
    recipe = path / RECIPE
    return Run(
        path=path,
        summary=summary,
        epochs=epochs,
        outer=sorted(_latest(events, Outer, lambda e: e.k), key=lambda e: e.k),
        checks=sorted(_latest(events, HardPruneCheck, lambda e: e.epoch), key=lambda e: e.epoch),
        recipe=read_text(recipe, "write it again, or move it away to report without it")
        if os.path.lexists(recipe)
        else None,
        has_metrics=(path / METRICS).is_file(),
        damaged_lines=damaged,
    )


def _read_summary(path: Path) -> Summary:
    if not path.is_dir():
        raise InputError(
            f"run directory {str(path)!r} does not exist; give the directory that "
            "`detprune run` wrote"
        )
    file = path / SUMMARY
    if not os.path.lexists(file):
        raise InputError(
            f"{str(path)!r} has no {SUMMARY}, which a run writes when it is finished; if it was "
            f"stopped, finish it with `detprune run --resume {path}` and report again"
        )
    content = read_json(file, f"delete it and continue with `detprune run --resume {path}`")
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{str(file)!r} {_faults(error)}; delete it and continue with `detprune run --resume {path}`"
        ) from error


def _faults(error: ValidationError) -> str:
    """Say which keys are missing and which values are wrong, all of them at once."""
    missing: list[str] = []
    wrong: list[str] = []
    for fault in error.errors():
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
        key = key.removeprefix(".")
        if fault["type"] == "missing":
            missing.append(key)
        else:
            wrong.append(f"{key or 'the whole'} is {fault['input']!r} ({fault['msg']})")
    parts = [f"lacks the keys {', '.join(missing)}"] if missing else []
    if wrong:
        parts.append(f"has values that cannot be used: {'; '.join(wrong)}")
    return " and ".join(parts)


_EVENTS: dict[str, type[_Record]] = {
    "epoch": Epoch,
    "outer": Outer,
    "hard_prune_check": HardPruneCheck,
}


def _read_events(file: Path) -> tuple[list[_Record], tuple[int, ...]]:
    """Return the known events and the numbers of the lines that could not be read.

    A last line that a kill cut off is dropped without a word; the same damage further up (a run
    that was killed and resumed) is counted, so that the page can say so.
    """
    if not os.path.lexists(file):
        return [], ()
    content = read_bytes(file, "delete it, to report without curves")
    events: list[_Record] = []
    damaged: list[int] = []
    # A kill may also cut a character of several bytes in two.
    lines = content.decode("utf-8", errors="replace").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                damaged.append(number)
            continue
        kind = _EVENTS.get(str(value.get("event", ""))) if isinstance(value, dict) else None
        if kind is None:
            continue
        try:
            events.append(kind.model_validate(value))
        except ValidationError as error:
            raise InputError(
                f"{str(file)!r} line {number} {_faults(error)}; delete the line, or the file to report "
                "without curves"
            ) from error
    return events, tuple(damaged)


_R = TypeVar("_R", bound=_Record)


def _latest(
    events: Iterable[_Record], kind: type[_R], key: Callable[[_R], Hashable]
) -> Iterable[_R]:
    """Return the events of one kind, the last one for each key.

    A resumed run repeats what came after its last checkpoint; the repetition is what counts.
    """
    return {key(event): event for event in events if isinstance(event, kind)}.values()
