"""Runs as processes: each run is a ``detprune run`` of its own, in a folder of its own.

So a run that was cut off resumes, and a run that fails does not stop the others.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch

from detprune.errors import InputError, StorageError
from detprune.files import load_yaml, parse_yaml
from detprune.files.folders import why_not_made
from detprune.files.locks import FolderInUseError, Holder, hold
from detprune.files.storage import storage_reason
from detprune.files.temporaries import sweep
from detprune.run.adapter import load_recipe
from detprune.run.beginning import changes
from detprune.run.directory import LOGGER, RunDirectory
from detprune.run.recipe import Recipe, Settings, assignments, dump_yaml, spelled_out
from detprune.run.records import Summary

DENSE_ONLY: Settings = {
    "method": "oneshot",
    "stages.constrained.epochs": 0,
    "stages.retrain.epochs": 0,
}
"""Settings that turn a recipe into one that trains the dense network alone."""

_RESULTS = ("results.json", "table.md", "report.html")
"""Files that a study, or progressive pruning, writes beside its runs."""

_SHOWN, _LONG = 4, 300  # keys, and characters, of what differs in a message
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)
_INTERRUPTED = {code for number in _SIGNALS for code in (-number, 128 + number)}
_PAUSE = 0.5  # seconds between two looks whether another process still works in a folder


@contextmanager
def folder_of_runs(path: Path, planned: Iterable["PlannedRun"] = ()) -> Iterator[Path]:
    """Make a folder for several runs, and hold its lock for the time of the block.

    Args:
        path: the folder.
        planned: the runs that belong there.

    Raises:
        FolderInUseError: another process holds it.
        InputError: it cannot be made, or holds a run, or results of other runs, which would be overwritten.
        StorageError: it became read-only meanwhile.
    """
    _check_others(path, planned)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {path}: {why_not_made(path, error)}; choose another with --out"
        ) from error
    with hold(path):
        for folder in (path, path / "figures"):
            sweep(folder, held=True)
        try:
            yield path
        except PermissionError as error:
            if (said := storage_reason(error, path)) is None:
                raise
            way_out = "let the folder be written, then call the command again, which goes on"
            raise StorageError(f"{said}; {way_out}") from error


def _check_others(path: Path, planned: Iterable["PlannedRun"]) -> None:
    way_out = "choose another folder with --out"
    if (path / "recipe.yaml").is_file() and (path / "checkpoints").is_dir():
        raise InputError(
            f"{path} is the folder of a run, whose report would be replaced; {way_out}"
        )
    there = [name for name in _RESULTS if os.path.lexists(path / name)]
    if there and not any(plan.folder.exists() for plan in planned):
        raise InputError(
            f"{path} holds {', '.join(there)} of something else: none of the runs that are to be made there exists; "
            f"{way_out}"
        )


@dataclass(frozen=True)
class PlannedRun:
    """A planned run: its folder, the base recipe's file, the settings in their order, and the resolved recipe."""

    folder: Path
    recipe_file: Path
    settings: Sequence[Settings]
    recipe: Recipe

    @classmethod
    def plan(cls, folder: Path, recipe_file: Path, settings: Sequence[Settings]) -> "PlannedRun":
        """Resolve the recipe.

        Raises:
            InputError: everything that is wrong with it, after the folder's name; or that is too long.
        """
        _check_length(folder)
        try:
            _, recipe = load_recipe(recipe_file, settings)
        except InputError as error:
            raise InputError(f"{folder.name}: {error}") from error
        return cls(folder, recipe_file, settings, recipe)

    @property
    def arguments(self) -> list[str]:
        """Arguments of the call of ``detprune``."""
        texts = [text for settings in self.settings for text in assignments(settings)]
        sets = [word for text in texts for word in ("--set", text)]
        return ["run", str(self.recipe_file), *sets]

    @property
    def command(self) -> str:
        """The command line that reproduces this run alone."""
        return shlex.join(["detprune", *self.arguments])

    @property
    def summary(self) -> Summary | None:
        """The summary of the run; None if it is not finished."""
        return RunDirectory(self.folder).summary()

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.summary is not None

    def check_same(self, part: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        """Check that the run in the folder, if any, has the planned recipe.

        Args:
            part: takes the part of a recipe that is compared; by default all of it.

        Raises:
            InputError: it is a run of another recipe.
        """
        file = self.folder / "recipe.yaml"
        if not file.is_file():
            return
        there = spelled_out(load_yaml(file), type(self.recipe))
        planned = parse_yaml(dump_yaml(self.recipe), "the recipe")
        if part is not None:
            there, planned = part(there), part(planned)
        if there != planned:
            differing = "; ".join(list(changes(there, planned))[:_SHOWN])[:_LONG]
            raise InputError(
                f"{self.folder} holds a run of another recipe than the one to be run there ({differing}); choose "
                "another --out, move a folder that was moved back to where it began, or delete that folder to start "
                "the run again"
            )


class Runs:
    """Several runs at a time, each on a GPU of its own where there are GPUs."""

    def __init__(self, jobs: int | None) -> None:
        gpus = _visible_gpus()
        self.jobs = jobs or max(1, len(gpus))
        self._gpus: SimpleQueue[str] = SimpleQueue()
        for job in range(self.jobs if gpus else 0):
            self._gpus.put(gpus[job % len(gpus)])
        self._has_gpus = bool(gpus)
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._starting = Lock()
        self._ending = False

    def all(self, plans: Iterable[PlannedRun]) -> None:
        """Run all plans that are not finished; an interruption ends the running ones too.

        A run that was killed after its summary, while it drew its report, left its lock file: it is resumed too.
        """
        pool = ThreadPoolExecutor(self.jobs)
        try:
            left = [plan for plan in plans if not plan.finished or Holder.read(plan.folder)]
            list(pool.map(self._run, left))
        except BaseException as error:
            if not isinstance(error, Exception):
                LOGGER.warning("interrupted; call the command again to continue")
            self._end_processes()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _run(self, plan: PlannedRun) -> None:
        """Run a plan; a process of a call that was killed, which still works in its folder, is waited for."""
        was_held = Holder.read(plan.folder) is not None
        waited = self._wait_for_others(plan.folder)
        if plan.finished and (waited or not was_held):
            return
        code = self._start(plan)
        if code not in (0, *_INTERRUPTED) and self._wait_for_others(plan.folder):  # taken meanwhile
            code = 0 if plan.finished else self._start(plan)
        self._tell(plan, code)

    def _wait_for_others(self, folder: Path) -> bool:
        """Wait until no other process of this machine works in a run's folder; return whether one did."""
        waited = False
        while folder.is_dir() and not self._ending:
            try:
                with hold(folder):
                    return waited
            except FolderInUseError as error:
                holder = Holder.read(folder)
                if holder is None or holder.is_elsewhere:
                    return waited  # the run itself says what to do
                if not waited:
                    LOGGER.info("%s: waits: %s", folder.name, error)
                waited = True
                time.sleep(_PAUSE)
            except InputError:  # not to be written, as the run itself will say
                return waited
        return waited

    def _start(self, plan: PlannedRun) -> int:
        """Start a run, or resume it; return its exit code."""
        resume = ["--resume"] if (plan.folder / "recipe.yaml").is_file() else []
        arguments = [*plan.arguments, "--out", str(plan.folder), *resume]
        log_file = _log_file(plan)
        LOGGER.info("%s: runs, see %s", plan.folder.name, log_file)
        with self._environment() as environment, log_file.open("a", encoding="utf-8") as log:
            return self._call(
                [sys.executable, "-m", "detprune", *arguments],
                stdout=log,
                stderr=log,
                env=environment,
            )

    @staticmethod
    def _tell(plan: PlannedRun, code: int) -> None:
        log_file = _log_file(plan)
        if code in _INTERRUPTED:
            LOGGER.warning(
                "%s: interrupted (exit code %d); call the command again to continue; see %s",
                *(plan.folder.name, code, log_file),
            )
        elif code or not plan.finished:
            why = _last_line(log_file)
            LOGGER.error(
                "%s: failed with exit code %d: %s; see %s", plan.folder.name, code, why, log_file
            )
        else:
            LOGGER.info("%s: finished", plan.folder.name)

    def _call(self, command: Sequence[str], **options: Any) -> int:
        with self._starting:
            if self._ending:
                return -signal.SIGTERM
            process = subprocess.Popen(command, **options)
            self._processes.add(process)
        try:
            return process.wait()
        finally:
            self._processes.discard(process)

    def _end_processes(self) -> None:
        with self._starting:  # a thread of the pool may be about to start a run
            self._ending = True
            for process in list(self._processes):
                process.terminate()

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str]]:
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        # -m imports modules from the working directory first, so that a yaml.py there would run
        environment["PYTHONSAFEPATH"] = "1"
        if self._has_gpus:
            gpu = self._gpus.get()
            try:
                yield {**environment, "CUDA_VISIBLE_DEVICES": gpu}
            finally:
                self._gpus.put(gpu)
        else:
            yield environment


def _visible_gpus() -> list[str]:
    """Values of ``CUDA_VISIBLE_DEVICES``, one for each GPU that this process sees."""
    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(i) for i in range(count)]


def _check_length(folder: Path) -> None:
    """Refuse a name that the file system does not take, before another run is trained."""
    there = next(parent for parent in folder.absolute().parents if parent.is_dir())
    try:
        (there / f"{folder.name}.log").lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{folder.name} cannot be the name of a run: {error.strerror}; give the method or model of the study a "
            "shorter name"
        ) from error


def _log_file(plan: PlannedRun) -> Path:
    """The file with what a run says, beside its folder."""
    return plan.folder.with_name(f"{plan.folder.name}.log")


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
