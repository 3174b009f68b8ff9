"""The run directory: everything a run leaves behind, written so that a kill never leaves half a file."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from detprune.errors import InputError
from detprune.locks import NAME as LOCK
from detprune.loggers import logger
from detprune.recipe import Recipe, dump_yaml, is_same
from detprune.temporaries import is_temporary, temporary_name

LOGGER = logger("detprune")


def is_main_process() -> bool:
    """Whether this process writes files: rank 0, or the only one."""
    return all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "NODE_RANK", "RANK"))


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that replaces it when the block ends without an error."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_of_the_opening(file: Path) -> bool:
    """Whether it may be left of a run that was killed before it had a recipe."""
    return file.name == LOCK or is_temporary(file, "recipe.yaml")


class RunDirectory:
    """Files of one run.

    ``recipe.yaml``, ``metrics.jsonl``, ``progress.json`` (stages that are finished),
    ``summary.json``, ``checkpoints/``, ``pruned.pt``, ``figures/``, ``report.html``, ``run.log``,
    ``tensorboard/``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
        except OSError as error:
            raise InputError(
                f"cannot write into the run directory {path}: {error.strerror}; "
                "choose another place with --out"
            ) from error
        return run

    @staticmethod
    def check(path: Path, recipe: Recipe, resume: bool) -> None:
        """Refuse a place that `open` would refuse; writes nothing.

        Raises:
            InputError: as `open`.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; name another run directory with --out")
        recipe_file = path / "recipe.yaml"
        if recipe_file.exists():
            if not resume:
                raise InputError(
                    f"{path} holds a run already; continue it with --resume, replace it with "
                    "--overwrite, or choose another place with --out"
                )
            if not is_same(yaml.safe_load(recipe_file.read_text(encoding="utf-8")), recipe):
                raise InputError(
                    f"{recipe_file} is not the recipe that is to be resumed; resume a run with the "
                    f"recipe it began with (detprune run {path} --resume), or start a new one with --out"
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

    def log_event(self, event: str, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        if is_main_process():
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, **values}) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All whole lines of ``metrics.jsonl``; a last line that a kill cut off is left out."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        events = []
        for number, line in enumerate(lines, 1):
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(lines):
                    raise InputError(f"{file}: line {number} is not JSON: {line[:80]!r}") from None
        return events

    def rewind(self, stage: str, epoch: int) -> None:
        """Forget events of ``stage`` after ``epoch``, which are going to happen again."""
        if not is_main_process():
            return
        kept = [e for e in self.events() if e.get("stage") != stage or e.get("epoch", 0) <= epoch]
        with atomic(self.path / "metrics.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(e) + "\n" for e in kept), encoding="utf-8")

    # ---------------------------------------------------------------- progress

    def finished(self) -> dict[str, dict[str, Any]]:
        """Stages that are finished, with their results."""
        file = self.path / "progress.json"
        if not file.exists():
            return {}
        stages: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return stages

    def finish(self, stage: str, **results: Any) -> None:
        """Mark a stage as finished; to be called after its files are written."""
        self.write_json("progress.json", {**self.finished(), stage: results})

    def summary(self) -> dict[str, Any] | None:
        """``summary.json``, which a run writes when all its stages are finished; None before."""
        file = self.path / "summary.json"
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically."""
        if is_main_process():
            with atomic(self.path / name) as temporary:
                temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    def save(self, path: Path, value: object) -> None:
        """``torch.save`` atomically."""
        if is_main_process():
            with atomic(path) as temporary:
                torch.save(value, temporary)

    @contextmanager
    def log_file(self) -> Iterator[None]:
        """Copy what detprune logs into ``run.log``."""
        if not is_main_process():
            yield
            return
        handler = logging.FileHandler(self.path / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(handler)
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)
            handler.close()
