"""A run of a study that gets SIGTERM, for the tests of every adapter."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import fork_runs
from detprune.files.locks import Holder
from detprune.run.directory import LOGGER
from detprune.run.studies.planned import PlannedRun, Runs


def check_a_run_that_is_ended(
    folder: Path,
    recipe: dict[str, Any],
    file: str,
    caplog: pytest.LogCaptureFixture,
    preloaded: str | None = None,
) -> None:
    """A run of a study gets SIGTERM once it has written a file: 143, interrupted, and nothing is left over.

    Args:
        folder: where the recipe and the run go.
        recipe: trains for ever.
        file: below ``checkpoints/`` of the run.
        preloaded: the framework that its process need not import.
    """
    path, run = folder / "recipe.yaml", folder / "run"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")

    runs = Runs(1)

    def end() -> None:
        deadline = time.monotonic() + 240
        while not (run / "checkpoints" / file).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        holder = Holder.read(run)
        if holder is None:
            runs._end_processes()  # it never came that far; what is checked below says so
        else:
            os.kill(holder.pid, signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    plans: Sequence[PlannedRun] = [PlannedRun.plan(run, path, [])]
    with pytest.MonkeyPatch.context() as patch, caplog.at_level("INFO", logger="detprune"):
        if preloaded is not None:
            fork_runs(patch, preloaded)
        patch.setattr(LOGGER, "propagate", True)  # what a command in this process has stopped
        runs.all(plans)
    ending.join()
    assert "run: interrupted (exit code 143); call the command again to continue" in caplog.text
    log = " ".join((folder / "run.log").read_text(encoding="utf-8").split())
    assert "interrupted; continue with: detprune run" in log
    assert "Traceback" not in log
    assert not (run / ".lock").exists()
    assert not list(run.rglob("*.tmp"))
    assert (run / "checkpoints" / file).stat().st_size
