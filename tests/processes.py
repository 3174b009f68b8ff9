"""detprune in processes that tests end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from detprune.locks import Holder
from detprune.runs import PlannedRun, Runs


@contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "detprune", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        cwd=cwd,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in the background
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something happened that a process is to do."""
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_a_run_that_is_ended(
    folder: Path, recipe: dict[str, Any], file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of a study gets SIGTERM once it has written a file: 143, interrupted, and nothing is left over.

    Args:
        folder: where the recipe and the run go.
        recipe: trains for ever.
        file: below ``checkpoints/`` of the run.
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
    with caplog.at_level("INFO", logger="detprune"):
        runs.all(plans)
    ending.join()
    assert "run: interrupted (exit code 143); started again, it goes on where it was" in caplog.text
    log = " ".join((folder / "run.log").read_text(encoding="utf-8").split())
    assert "interrupted; continue with: detprune run" in log
    assert "Traceback" not in log
    assert not (run / ".lock").exists()
    assert not list(run.rglob("*.tmp"))
    assert (run / "checkpoints" / file).stat().st_size
