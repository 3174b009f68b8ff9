"""A finished run, read from its files; the report uses a run only through this module."""

import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from detprune.errors import InputError
from detprune.files import load_tensors, read_text
from detprune.run import events
from detprune.run.directory import RunDirectory
from detprune.run.events import Epoch, Event, HardPruneCheck, Outer
from detprune.run.given import refuse_several
from detprune.run.records import SUMMARY, Layer, Summary

RECIPE = "recipe.yaml"
DENSE_CHECKPOINT = "checkpoints/dense.pt"
FINAL_CHECKPOINT = "checkpoints/final.pt"

Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """A finished run, read from its files."""

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

    @cached_property
    def dense_weights(self) -> dict[str, Array] | None:
        """The pruned tensors of the dense network, by name; None if there is no checkpoint."""
        return _read_checkpoint(self, DENSE_CHECKPOINT)

    @cached_property
    def final_weights(self) -> dict[str, Array] | None:
        """The pruned tensors of the final network; None without a checkpoint, or if channels were removed."""
        if self.summary.removal is not None:
            return None
        return _read_checkpoint(self, FINAL_CHECKPOINT)


def _read_checkpoint(run: Run, relative: str) -> dict[str, Array] | None:
    """Return the pruned tensors of a checkpoint by name, or None where there is no such file."""
    file = run.path / relative
    if not os.path.lexists(file):
        return None
    state = load_tensors(file, "write it again, or move it away to report without it")
    tensors: dict[str, Array] = {}
    wrong: list[str] = []
    for layer in run.pruned:
        tensor = state.get(layer.name)
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != layer.shape:
            wrong.append(layer.name)
        else:
            tensors[layer.name] = tensor.detach().to(torch.float32).numpy()
    if wrong:
        raise InputError(
            f"{str(file)!r} does not fit summary.json: it lacks, or has in another shape, "
            f"{', '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}; put back the checkpoint of "
            "this run, or move the file away to report without it"
        )
    return tensors


def read_run(path: Path) -> Run:
    """Read `summary.json`, `metrics.jsonl` and `recipe.yaml` of a run directory.

    Raises:
        InputError: the run is not finished, or its files cannot be used.
    """
    summary = _read_summary(path)
    file = path / events.FILE
    lines = events.read_lines(file, "delete it, to report without curves")
    found = [events.parsed(number, value, file) for number, value in lines.values.items()]
    epochs: dict[str, list[Epoch]] = {}
    for epoch in _latest(found, Epoch, lambda e: (e.stage, e.epoch)):
        epochs.setdefault(epoch.stage, []).append(epoch)
    for stage in epochs.values():
        stage.sort(key=lambda e: e.epoch)
    recipe = path / RECIPE
    return Run(
        path=path,
        summary=summary,
        epochs=epochs,
        outer=sorted(_latest(found, Outer, lambda e: e.k), key=lambda e: e.k),
        checks=sorted(_latest(found, HardPruneCheck, lambda e: e.epoch), key=lambda e: e.epoch),
        recipe=read_text(recipe, "write it again, or move it away to report without it")
        if os.path.lexists(recipe)
        else None,
        has_metrics=file.is_file(),
        damaged_lines=tuple(lines.damaged),
    )


def _read_summary(path: Path) -> Summary:
    if path.is_file():
        raise InputError(
            f"{str(path)!r} is a file; give the directory that `detprune run` wrote, such as {str(path.parent)!r}"
        )
    if not path.is_dir():
        raise InputError(
            f"run directory {str(path)!r} does not exist; give the directory that "
            "`detprune run` wrote"
        )
    run = RunDirectory(path)
    summary = run.summary()
    if summary is None:
        refuse_several(path)
        raise InputError(
            f"{str(path)!r} has no {SUMMARY}, which a run writes when it is finished; if it was "
            f"stopped, finish it with `{run.resume_command}` and report again"
        )
    return summary


_E = TypeVar("_E", bound=Event)


def _latest(
    found: Iterable[Event | None], kind: type[_E], key: Callable[[_E], Hashable]
) -> Iterable[_E]:
    """Return the events of one kind; of several with one key, the last.

    A resumed run repeats what came after its last checkpoint; the repetition is what counts.
    """
    return {key(event): event for event in found if isinstance(event, kind)}.values()
