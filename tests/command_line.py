"""``detprune`` as its users call it: in processes, preloaded or of their own, and in this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detprune.run.cli import main as cli
from preloaded import Preloaded

Process = subprocess.Popen[str]
Call = Callable[..., subprocess.CompletedProcess[str]]


def start(
    *arguments: object, preloaded: str | None = "lightning", program: str | None = None, **more: Any
) -> Process:
    """Start ``python -m detprune`` on one thread.

    Args:
        preloaded: the framework whose modules are there already; None for a process of its own, which imports.
        program: what ``python -c`` runs in its place.
        more: of :class:`subprocess.Popen`; ``env`` is added to this process's.
    """
    words = ["-m", "detprune"] if program is None else ["-c", program]
    command = [sys.executable, *words, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300", **more.pop("env", {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    if preloaded is None:
        return subprocess.Popen(command, env=environment, preexec_fn=_interruptible, **options)
    return Preloaded(command, framework=preloaded, env=environment, **options)


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup


def detprune(*arguments: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end, at which it must leave with the code; the options are those of :func:`start`."""
    with start(*arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=280)
        finally:
            process.kill()
    assert process.returncode == code, out[-5000:] + err[-5000:]
    return subprocess.CompletedProcess(process.args, code, out, err)


def detprune_here(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """The same in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["detprune", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def fork_runs(monkeypatch: pytest.MonkeyPatch, framework: str = "lightning") -> None:
    """The runs that studies in this process start are preloaded."""

    def popen(command: list[str], **options: Any) -> Process:
        return Preloaded(command, framework=framework, **options)

    monkeypatch.setattr("detprune.run.studies.planned.subprocess", SimpleNamespace(Popen=popen))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@contextmanager
def started(*arguments: object, cwd: Path, **options: Any) -> Iterator[Process]:
    """A process, with one stream for all that it says, that is killed at the end of the block."""
    process = start(*arguments, cwd=cwd, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(happened: Callable[[], object], process: Process) -> None:
    """Wait until something happened that a process is to do."""
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_after(
    arguments: Sequence[object], run: Path, marks: Sequence[tuple[str, int]], **options: Any
) -> None:
    """Start a run again and again, and kill it after so many epochs of a stage."""
    for stage, epochs in marks:
        with start(*arguments, **options) as process:
            wait_for(lambda stage=stage, epochs=epochs: trained(run, stage, epochs), process)
            process.kill()
            process.communicate()
        assert not (run / "summary.json").exists()


def trained(run: Path, stage: str, epochs: int) -> bool:
    """Whether so many epochs of a stage are logged."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    count = sum(f'"stage": "{stage}"' in line and '"event": "epoch"' in line for line in lines)
    return count >= epochs


def detprune_command(*arguments: object) -> None:
    """A command that ends well, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        assert detprune_here(*arguments, monkeypatch=patch) == 0
