"""The run directory: all files of a run, written so that a kill never leaves half a file."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError, StorageError
from detprune.files import load_yaml, read_json
from detprune.files.atomic import atomic
from detprune.files.deflated import save_deflated
from detprune.files.folders import why_not_made
from detprune.files.locks import NAME as LOCK
from detprune.files.storage import shortage_reason, storage_reason
from detprune.files.storage import way_out as storage_way_out
from detprune.files.temporaries import is_temporary
from detprune.loggers import logger
from detprune.run import events
from detprune.run.parsing import parse
from detprune.run.printable import PlainFormatter
from detprune.run.recipe import Recipe, dump_yaml, is_same
from detprune.run.records import SUMMARY, Stage, StageResult, Summary

LOGGER = logger("detprune")


def is_main_process() -> bool:
    """Whether this process writes files: rank 0, or the only one."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "NODE_RANK", "RANK"))


def _is_of_the_opening(file: Path) -> bool:
    """Whether a file may be left from a run that was killed before it had a recipe."""
    return file.name == LOCK or is_temporary(file, "recipe.yaml")


class _RunLog(logging.FileHandler):
    """``run.log``; if it cannot be written, the terminal shows one warning, and the run goes on."""

    _is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if not self._is_broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Warn once that the log ends here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._is_broken = True
        LOGGER.warning(
            "%s cannot be written any more: %s", self.baseFilename, error.strerror or error
        )

    def close(self) -> None:
        """Close the file; lines that a full disk did not take are lost."""
        try:
            super().close()
        except OSError:  # the warning came when the line was written
            logging.Handler.close(self)


class RunDirectory:
    """Files of one run.

    ``recipe.yaml``, ``metrics.jsonl``, ``progress.json`` (stages that are finished),
    ``summary.json``, ``checkpoints/``, ``pruned.pt``, ``figures/``, ``report.html``, ``run.log``,
    ``tensorboard/``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_opened = False

    @classmethod
    def open(cls, path: Path, recipe: Recipe, resume: bool) -> "RunDirectory":
        """Create a run directory, or continue in one.

        Raises:
            InputError: it holds a run already and ``resume`` is off, or holds another recipe.
        """
        run = cls(path)
        if not is_main_process():
            return run
        cls.check(path, recipe, resume)
        recipe_file = path / "recipe.yaml"
        try:
            path.mkdir(parents=True, exist_ok=True)
            with atomic(recipe_file) as temporary:  # first: a kill leaves a run or an empty folder
                temporary.write_text(dump_yaml(recipe), encoding="utf-8")
            run.checkpoints.mkdir(exist_ok=True)
            run._is_opened = True
        except OSError as error:
            raise InputError(
                f"cannot write into the run directory {path}: {why_not_made(path, error)}; "
                "choose another place with --out"
            ) from error
        return run

    @staticmethod
    def check(path: Path, recipe: Recipe, resume: bool) -> None:
        """Refuse a path that `open` would refuse, without writing anything.

        Raises:
            InputError: as `open`.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; choose another run directory with --out")
        recipe_file = path / "recipe.yaml"
        if recipe_file.exists():
            if not resume:
                raise InputError(
                    f"{path} holds a run already; continue it with {RunDirectory(path).resume_command}, "
                    "replace it with --overwrite, or choose another place with --out"
                )
            if not is_same(load_yaml(recipe_file), recipe):
                raise InputError(
                    f"{recipe_file} is not the recipe that is to be resumed; resume a run with the "
                    f"recipe it started with (detprune run {path} --resume), or start a new one with --out"
                )
        elif path.is_dir() and any(not _is_of_the_opening(f) for f in path.iterdir()):
            raise InputError(
                f"{path} is not empty and holds no run; choose another place with --out"
            )

    @property
    def checkpoints(self) -> Path:
        """Folder of all intermediate weights."""
        return self.path / "checkpoints"

    @property
    def pruned(self) -> Path:
        """The result: a plain ``state_dict``."""
        return self.path / "pruned.pt"

    # ---------------------------------------------------------------- events

    def log(self, event: events.Event) -> None:
        """Append one line to ``metrics.jsonl``."""
        if is_main_process():
            with (self.path / events.FILE).open("a", encoding="utf-8") as file:
                file.write(events.line(event))

    def events(self) -> list[dict[str, Any]]:
        """All complete lines of ``metrics.jsonl``, as mappings.

        Raises:
            InputError: a line that is damaged, and not by a kill that cut off the last one.
        """
        file = self.path / events.FILE
        way_out = f"delete it, which loses the curves of the report, and continue with {self.resume_command}"
        lines = events.read_lines(file, way_out)
        for number, text in lines.damaged.items():
            raise InputError(f"{file}, line {number} is no JSON object: {text[:80]!r}; {way_out}")
        return list(lines.values.values())

    def rewind(self, stage: str, epoch: int) -> None:
        """Remove events of ``stage`` after ``epoch``, because they will happen again."""
        if not is_main_process():
            return
        kept = [e for e in self.events() if e.get("stage") != stage or e.get("epoch", 0) <= epoch]
        with atomic(self.path / events.FILE) as temporary:
            temporary.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")

    # ---------------------------------------------------------------- progress

    def finished(self) -> dict[Stage, StageResult]:
        """Stages that are finished, with their results."""
        file = self.path / "progress.json"
        if not os.path.lexists(file):
            return {}
        way_out = f"delete it and continue with {self.resume_command}"
        return parse(dict[Stage, StageResult], read_json(file, way_out), str(file), way_out)

    def finish(self, stage: Stage, result: StageResult) -> None:
        """Mark a stage as finished; to be called after its files are written."""
        self.check_there()
        stages = {**self.finished(), stage: result}
        dumped: dict[str, Any] = {
            s: r.model_dump(mode="json", exclude_none=True) for s, r in stages.items()
        }
        self.write_json("progress.json", dumped)

    def check_there(self) -> None:
        """Refuse to go on in a folder that was removed, moved or emptied since the run was opened.

        Raises:
            StorageError: the recipe that the run wrote is not there any more.
        """
        if self._is_opened and not os.path.lexists(self.path / "recipe.yaml"):
            raise StorageError(
                f"{self.path} was removed, moved or emptied while the run was going on, so that its result would be "
                f"incomplete; if it lies on a disk that is gone, mount it and continue with {self.resume_command}; "
                "if it was moved, continue it there in the same way; else start the run again with its recipe"
            )

    def summary(self) -> Summary | None:
        """The content of ``summary.json``, which a run writes when all its stages are finished; None before."""
        file = self.path / SUMMARY
        if not os.path.lexists(file):
            return None
        way_out = f"delete it and continue with {self.resume_command}"
        return parse(Summary, read_json(file, way_out), str(file), way_out)

    @property
    def resume_command(self) -> str:
        """The command that continues the run."""
        return f"detprune run {shlex.quote(str(self.path))} --resume"

    @property
    def way_out(self) -> str:
        """The way out for messages about a damaged file of a finished stage."""
        return (
            f"delete {self.path / 'progress.json'} and continue with {self.resume_command}, which makes the "
            "files of all stages again from their last checkpoints"
        )

    @contextmanager
    def own_file(self, way_out: str | None = None) -> Iterator[None]:
        """Add to errors about a damaged file of this run what to do about it.

        Args:
            way_out: what to do, in place of making the files of all stages again.

        Raises:
            InputError: the one that the block raised, with the way out.
        """
        try:
            yield
        except InputError as error:
            wanted = way_out or self.way_out
            if wanted in str(error):
                raise
            raise InputError(f"{error}\nIt is a file of this run: {wanted}") from error

    @contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Turn errors of a full disk and the like into one that says how to continue the run.

        Raises:
            StorageError: the system refused to write, or has no more files, processes or memory to give.
        """
        try:
            yield
        except (OSError, RuntimeError, MemoryError) as error:
            self.check_there()
            if (scarce := shortage_reason(error)) is not None:
                raise StorageError(f"{scarce}, then continue with {self.resume_command}") from error
            said = None if isinstance(error, MemoryError) else storage_reason(error, self.path)
            if said is None:
                raise
            raise StorageError(
                f"{said}; {storage_way_out(error)}, then continue with {self.resume_command}"
            ) from error

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically."""
        if is_main_process():
            with atomic(self.path / name) as temporary:
                temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    def save(self, path: Path, value: object) -> None:
        """``torch.save`` atomically; ``pruned.pt``, the result for users, is deflated."""
        if is_main_process():
            with atomic(path) as temporary:
                if path == self.pruned:
                    save_deflated(value, temporary)
                else:
                    torch.save(value, temporary)

    @contextmanager
    def log_file(self) -> Iterator[None]:
        """Copy detprune's log lines into ``run.log``."""
        if not is_main_process():
            yield
            return
        handler = _RunLog(self.path / "run.log", encoding="utf-8")
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(handler)
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)
            handler.close()
