"""``detprune`` in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from detprune import cli


def detprune(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Call it on one thread; it must leave with the code."""
    process = subprocess.run(
        [sys.executable, "-m", "detprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert process.returncode == code, process.stdout + process.stderr
    return process


def detprune_here(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The same in this process, which saves the seconds that imports take; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["detprune", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def wait_for_epochs(run: Path, stage: str, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the run ended before {stage} {count}: {process.communicate()}")
        file = run / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        if (
            sum(f'"stage": "{stage}"' in line and '"event": "epoch"' in line for line in lines)
            >= count
        ):
            return
        time.sleep(0.005)
    raise AssertionError(f"no {stage} epoch {count} within two minutes")


def kill_after(command: Sequence[str], run: Path, marks: Sequence[tuple[str, int]]) -> None:
    """Start a run again and again, and kill it after so many epochs of a stage."""
    for stage, epochs in marks:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        wait_for_epochs(run, stage, epochs, process)
        process.kill()
        process.communicate()
        assert not (run / "summary.json").exists()
