"""Runs a study: every cell is a ``detprune run`` of its own, in a process and a folder of its own.

So a study that was cut off takes up where it was, and a cell that fails does not stop the others.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import yaml

from detprune.errors import InputError
from detprune.problems import listed
from detprune.recipe import Recipe, dump_yaml
from detprune.rundir import LOGGER
from detprune.study.results import write_results
from detprune.study.spec import Baseline, Cell, Study, assignments, read_study
from detprune.task import load_recipe

_DENSE_ONLY = (
    "method=oneshot",
    "stages.constrained.epochs=0",
    "stages.retrain.epochs=0",
)


@dataclass(frozen=True)
class Planned:
    """A run that is to be there: its folder, what is set in the recipe, and the recipe itself."""

    folder: Path
    recipe_file: Path
    settings: Sequence[str]
    recipe: Recipe

    @property
    def arguments(self) -> list[str]:
        """What ``detprune`` is called with."""
        sets = [word for setting in self.settings for word in ("--set", setting)]
        return ["run", str(self.recipe_file), *sets]

    @property
    def command(self) -> str:
        """What reproduces it alone."""
        return shlex.join(["detprune", *self.arguments])

    @property
    def finished(self) -> bool:
        """Whether it need not be run."""
        return (self.folder / "summary.json").is_file()


def run_study(
    file: Path, out: Path | None, changes: list[str], jobs: int | None
) -> tuple[Path, bool]:
    """Run what is not finished, then write table, figure and report into the folder.

    Args:
        file: the study.
        out: folder of all runs; ``runs/<name of the study>`` by default.
        changes: ``key=value`` for every run, on top of the study's own settings.
        jobs: runs at a time; by default one per GPU, and one without a GPU.

    Returns:
        The folder, and whether all runs succeeded.

    Raises:
        InputError: anything wrong with study or recipes, before the first run; budgets of epochs that
            differ; a folder that holds another study's runs.
    """
    study = read_study(file)
    folder = (out or Path("runs") / study.name).absolute()
    dense, cells = plan_study(study, folder, changes)
    for baseline in dense.values():
        _check_same(baseline, _dense_part)
    for planned in cells.values():
        _check_same(planned, lambda recipe: recipe)

    folder.mkdir(parents=True, exist_ok=True)
    run = _Runs(jobs)
    run.all(dense.values())
    run.all(plan for cell, plan in cells.items() if dense[cell.baseline].finished)
    commands = {cell: plan.command for cell, plan in cells.items()}
    write_results(study, folder, commands)
    return folder, all(plan.finished for plan in (*dense.values(), *cells.values()))


def plan_study(
    study: Study, folder: Path, changes: list[str]
) -> tuple[dict[Baseline, Planned], dict[Cell, Planned]]:
    """All runs of a study, with their recipes resolved; see `run_study`."""
    dense = {b: _plan_baseline(study, b, folder, changes) for b in study.baselines}
    cells = {c: _plan_cell(study, c, folder, changes, dense[c.baseline]) for c in study.cells}
    _check_epochs(cells)
    return dense, cells


def _plan_baseline(study: Study, baseline: Baseline, folder: Path, changes: list[str]) -> Planned:
    settings = [*study.settings_of(baseline), *changes, *_DENSE_ONLY]
    _, recipe = load_recipe(study.recipe, settings)
    return Planned(folder / baseline.folder, study.recipe, settings, recipe)


def _plan_cell(
    study: Study, cell: Cell, folder: Path, changes: list[str], dense: Planned
) -> Planned:
    settings = [
        *study.settings_of(cell.baseline),
        *changes,
        *dense.recipe.from_dense(dense.folder),
        *assignments(study.methods[cell.method]),
        f"budget.compression={cell.rate}",
    ]
    try:
        _, recipe = load_recipe(study.recipe, settings)
    except InputError as error:
        raise InputError(f"{cell.folder}: {error}") from error
    return Planned(folder / cell.folder, study.recipe, settings, recipe)


def _check_epochs(cells: dict[Cell, Planned]) -> None:
    """All cells of a study train for the same number of epochs, else nothing can be compared."""
    lengths: dict[int, list[str]] = {}
    for cell, plan in cells.items():
        lengths.setdefault(plan.recipe.pruning_epochs, []).append(cell.folder)
    if len(lengths) > 1:
        found = "; ".join(
            f"{epochs} in {listed(names)}" for epochs, names in sorted(lengths.items())
        )
        raise InputError(
            "the runs of a study have the same epochs of constrained training and masked retraining "
            f"together, but here are: {found}; give every method as many"
        )


def _check_same(plan: Planned, part: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """What is in a folder is what the study would run there."""
    file = plan.folder / "recipe.yaml"
    if not file.is_file():
        return
    there = part(yaml.safe_load(file.read_text(encoding="utf-8")))
    if there != part(yaml.safe_load(dump_yaml(plan.recipe))):
        raise InputError(
            f"{plan.folder} holds a run of another recipe than the study's; choose another --out, or "
            "delete that folder to run it again"
        )


def _dense_part(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a dense network depends on: all but what is done to it later."""
    later = ("name", "method", "set", "budget", "batch_norm_images", "stages")
    kept = {key: value for key, value in recipe.items() if key not in later}
    return {**kept, "dense": recipe["stages"]["dense"]}


class _Runs:
    """Several runs at a time, each on a GPU of its own where there are GPUs."""

    def __init__(self, jobs: int | None) -> None:
        gpus = torch.cuda.device_count()
        self.jobs = jobs or max(1, gpus)
        self._gpus: SimpleQueue[int] = SimpleQueue()
        for job in range(self.jobs if gpus else 0):
            self._gpus.put(job % gpus)
        self._has_gpus = gpus > 0

    def all(self, plans: Iterable[Planned]) -> None:
        """Run those that are not finished."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            list(pool.map(self._run, [plan for plan in plans if not plan.finished]))
        finally:
            pool.shutdown(cancel_futures=True)

    def _run(self, plan: Planned) -> None:
        resume = ["--resume"] if (plan.folder / "recipe.yaml").is_file() else []
        arguments = [*plan.arguments, "--out", str(plan.folder), *resume]
        log_file = plan.folder.with_name(f"{plan.folder.name}.log")
        LOGGER.info("%s: runs, see %s", plan.folder.name, log_file)
        with self._environment() as environment, log_file.open("a", encoding="utf-8") as log:
            code = subprocess.call(
                [sys.executable, "-m", "detprune", *arguments],
                stdout=log,
                stderr=log,
                env=environment,
            )
        if code:
            LOGGER.error("%s: failed with exit code %d, see %s", plan.folder.name, code, log_file)
        else:
            LOGGER.info("%s: finished", plan.folder.name)

    @contextmanager
    def _environment(self) -> Any:
        if self._has_gpus:
            gpu = self._gpus.get()
            try:
                yield {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
            finally:
                self._gpus.put(gpu)
        else:
            threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
            yield {"OMP_NUM_THREADS": threads, **os.environ}
