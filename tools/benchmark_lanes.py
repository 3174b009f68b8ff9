"""The cost of the lane adapter, as ratios to the usual alternatives, measured in turn.

    python tools/benchmark_lanes.py [--section NAME] [--annotations test_label.json] [--official lane.py]

Section "metric": scoring a submission of all frames from files, reading included, against the
benchmark's own script if ``--official`` names a copy of it (``evaluation/tusimple/lane.py`` of
Ultra-Fast-Lane-Detection; it needs scikit-learn), else against plain loops with the same rules. The
submission is the ground truth with noise, lanes left out and lanes too many; without
``--annotations`` the ground truth is drawn: as many frames as TuSimple tests on.

Section "loader": augmented training frames from the loader, in one process, against training steps on
as many of them. Section "overhead": training epochs with SLR, its outer iteration included, against
the same without. Both with the original's ResNet-18 at 288 × 800.
"""

import importlib.util
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

import detprune as dp
from detprune_lanes.data.augment import Augmentation
from detprune_lanes.data.frames import LaneFrames
from detprune_lanes.data.labels import read_labels
from detprune_lanes.data.roads.drawn import LABELS, DrawnRoads, draw
from detprune_lanes.grid import ABSENT, FRAME_WIDTH, Grid
from detprune_lanes.losses import LaneLoss
from detprune_lanes.measure.submission import evaluate_files
from detprune_lanes.network.model import LaneNetwork

FRAMES = 2782
"""Frames of TuSimple's test set."""

_BATCH, _STEPS = 8, 8

Rates = tuple[float, float, float]
"""Accuracy, FP and FN."""


@dataclass(frozen=True)
class Options:
    """Options of the sections."""

    repeats: int
    annotations: Path | None
    official: Path | None


@dataclass(frozen=True)
class Row:
    """A comparison: median seconds of both, and the ratios ours / theirs of neighbouring runs."""

    what: str
    against: str
    ours: float
    theirs: float
    ratios: list[float]


def paired(
    what: str, against: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int
) -> Row:
    """Time both in turn, so that the ratios hold when the machine's speed drifts."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, kept in zip((ours, theirs), times, strict=True):
            began = time.perf_counter()
            function()
            if repeat:  # the first is the warm-up
                kept.append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return Row(what, against, statistics.median(times[0]), statistics.median(times[1]), ratios)


def metric(options: Options) -> list[Row]:
    """Scoring a submission from files.

    Raises:
        RuntimeError: the two do not agree to 1e-9.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        truth, found = options.annotations, Path(folder, "submission.json")
        if truth is None:
            truth = Path(folder, "truth.json")
            _write(truth, [_drawn_frame(rng, number) for number in range(FRAMES)])
        _write(found, [_submitted(rng, frame) for frame in _read(truth)])
        script = options.official
        theirs = _loops if script is None else _script(script)
        against = "plain loops" if script is None else script.name

        def ours() -> Rates:
            scores = evaluate_files(found, truth)
            return scores.accuracy, scores.fp, scores.fn

        expected = theirs(found, truth)
        if any(abs(a - b) > 1e-9 for a, b in zip(ours(), expected, strict=True)):
            raise RuntimeError(f"{ours()}, but {against} says {expected}")
        what = f"metric, {len(_read(truth)):,} frames"
        return [paired(what, against, ours, lambda: theirs(found, truth), options.repeats)]


def loader(options: Options) -> list[Row]:
    """Loading a batch of augmented frames against training on it."""
    with tempfile.TemporaryDirectory() as folder:
        root = draw(DrawnRoads(train=_BATCH, test=0), Path(folder, "roads"))
        frames = LaneFrames(
            read_labels([root / LABELS["train"]], root),
            Grid(),
            augment=Augmentation(),
            segmentation=True,
            cache=Path(folder, "frames"),
        )
        step = Step(LaneNetwork(use_aux=True), None)

        def load() -> list[Tensor]:
            batch: list[Tensor] = next(iter(DataLoader(frames, batch_size=_BATCH, shuffle=True)))
            return batch

        images, target, slots = load()
        name = f"loading {_BATCH} frames"
        train = partial(step, images, target, slots)
        return [paired(name, "a training step on them", load, train, options.repeats)]


def overhead(options: Options) -> list[Row]:
    """An epoch of a few steps with the pruner against one without."""
    images = torch.randn(_BATCH, 3, 288, 800)
    target = torch.randint(Grid().cells + 1, (_BATCH, Grid().rows, Grid().lanes))
    slots = torch.randint(5, (_BATCH, 36, 100))

    def epoch(method: dp.Method | None) -> Callable[[], None]:
        step = Step(LaneNetwork(use_aux=True), method)

        def run() -> None:
            for _ in range(_STEPS):
                step(images, target, slots)
            if step.pruner is not None:
                step.pruner.update()

        return run

    name = f"{_STEPS} steps of {_BATCH} frames and SLR's update"
    ours, theirs = epoch(dp.SLR(rho=0.1)), epoch(None)
    return [paired(name, "the same without pruner", ours, theirs, options.repeats)]


class Step:
    """A training step as the original makes it."""

    def __init__(self, network: LaneNetwork, method: dp.Method | None) -> None:
        self._network, self._loss = network, LaneLoss()
        self._optimizer = torch.optim.Adam(network.parameters(), lr=4e-4, weight_decay=1e-4)
        self.pruner: dp.Pruner | None = None
        if method is not None:
            budget = dp.Budget(compression=12.1, exclude=["aux_*"])
            self.pruner = dp.Pruner(network, self._optimizer, method, budget=budget)

    def __call__(self, images: Tensor, target: Tensor, slots: Tensor) -> None:
        logits, segmentation = self._network(images)
        loss = self._loss(logits, target, segmentation, slots)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        if self.pruner is not None:
            self.pruner.observe(loss)


SECTIONS: dict[str, Callable[[Options], list[Row]]] = {
    "metric": metric,
    "loader": loader,
    "overhead": overhead,
}


def main(
    sections: Annotated[
        list[str] | None, typer.Option("--section", help="Sections to run; all without it.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="TuSimple's test_label.json; drawn without it.", exists=True)
    ] = None,
    official: Annotated[
        Path | None,
        typer.Option(help="Copy of the benchmark's script lane.py; it is run.", exists=True),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Counted pairs of every comparison.")] = 5,
) -> None:
    """Measure and print."""
    chosen = sections or list(SECTIONS)
    if unknown := set(chosen) - set(SECTIONS):
        raise typer.BadParameter(f"no section {sorted(unknown)}; choose from {sorted(SECTIONS)}")
    options = Options(repeats, annotations, official)
    table = Table(
        title=f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    )
    for column in ("what", "against"):
        table.add_column(column)
    for column in ("ms", "ms of that", "ratio", "lowest", "highest"):
        table.add_column(column, justify="right")
    for name in chosen:
        for row in SECTIONS[name](options):
            ratios = statistics.median(row.ratios), min(row.ratios), max(row.ratios)
            milliseconds = (f"{1e3 * seconds:,.1f}" for seconds in (row.ours, row.theirs))
            table.add_row(row.what, row.against, *milliseconds, *(f"{r:.3f}" for r in ratios))
    Console(width=110).print(table)


def _read(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, frames: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(frame) + "\n" for frame in frames), encoding="utf-8")


def _drawn_frame(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Two to five straight lanes that meet at a vanishing point, in the rows of the labels."""
    rows = Grid().anchors()
    x, y = rng.uniform(560, 720), rng.uniform(220, 280)
    slopes = (np.arange(rng.integers(2, 6)) + rng.uniform(-2.5, -1.5)) * rng.uniform(0.8, 1.6)
    lanes = np.round(x + slopes[:, np.newaxis] * (rows - y))
    lanes[(rows < y + 10) | (lanes < 0) | (lanes >= FRAME_WIDTH)] = ABSENT
    return {
        "raw_file": f"clips/{number}/20.jpg",
        "lanes": lanes.astype(int).tolist(),
        "h_samples": np.round(rows).astype(int).tolist(),
    }


def _submitted(rng: np.random.Generator, frame: dict[str, Any]) -> dict[str, Any]:
    """What a network might find in a frame: one lane in twelve is missed, one in ten is wrong."""
    found = []
    for lane in frame["lanes"]:
        x = np.array(lane)
        x[x >= 0] += np.round(rng.normal(rng.choice([0, 0, 5]), rng.choice([2, 8]), 1)).astype(int)
        x[rng.random(x.size) < 0.02] = ABSENT
        if rng.random() > 1 / 12:
            found.append(x.tolist())
        if rng.random() < 1 / 10:
            found.append(rng.integers(ABSENT, FRAME_WIDTH, x.size).tolist())
    return {"raw_file": frame["raw_file"], "lanes": found, "run_time": int(rng.integers(5, 202))}


def _script(path: Path) -> Callable[[Path, Path], Rates]:
    spec = importlib.util.spec_from_file_location("official_lane", path)
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(found: Path, truth: Path) -> Rates:
        values = json.loads(module.LaneEval.bench_one_submit(str(found), str(truth)))
        accuracy, fp, fn = (entry["value"] for entry in values[:3])
        return accuracy, fp, fn

    return run


def _loops(found: Path, truth: Path) -> Rates:
    frames = {frame["raw_file"]: frame for frame in _read(truth)}
    submitted = _read(found)
    rates = [_frame(each, frames[each["raw_file"]]) for each in submitted]
    accuracy, fp, fn = (sum(column) / len(frames) for column in zip(*rates, strict=True))
    return accuracy, fp, fn


def _frame(submitted: dict[str, Any], frame: dict[str, Any]) -> Rates:
    """The rules as in ``detprune_lanes.measure.tusimple``, lane by lane and row by row."""
    found, labelled, rows = submitted["lanes"], frame["lanes"], frame["h_samples"]
    if submitted["run_time"] > 200 or len(found) > len(labelled) + 2:
        return 0.0, 0.0, 1.0
    best = []
    for lane in labelled:
        points = [(y, x) for y, x in zip(rows, lane, strict=True) if x >= 0]
        slope = (
            statistics.linear_regression(*zip(*points, strict=True)).slope if points[1:] else 0.0
        )
        reach = 20 / math.cos(math.atan(slope))
        shares = [0.0]
        for other in found:
            pairs = [
                (a if a >= 0 else -100, b if b >= 0 else -100)
                for a, b in zip(other, lane, strict=True)
            ]
            shares.append(sum(abs(a - b) < reach for a, b in pairs) / len(rows))
        best.append(max(shares))
    missed = sum(share < 0.85 for share in best)
    fp = (len(found) - len(best) + missed) / max(len(found), 1)
    if len(best) > 4:
        best.remove(min(best))
        missed -= missed > 0
    most = max(min(len(labelled), 4), 1)
    return sum(best) / most, fp, missed / most


if __name__ == "__main__":
    typer.run(main)
