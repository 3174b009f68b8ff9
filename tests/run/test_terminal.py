"""Terminals that take little: no characters but ASCII, nothing at all, or a disk that is full; names like markup."""

import io
import sys
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import detprune as dp
from command_line import detprune_here
from detprune.loggers import logger
from detprune.run.cli.streams import prepare_streams, quiet_threads
from detprune.run.cli.terminal import log_to_terminal
from detprune.run.directory import RunDirectory
from detprune.run.measuring import measure_networks
from detprune.run.measuring.table import measurement_table
from detprune.run.printable import printable


def test_what_a_terminal_cannot_show_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """list has ×, which is not in ASCII; a run failed in its first table, or after all in its last."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert detprune_here("list", monkeypatch=monkeypatch) == 0
    sys.stdout.flush()
    assert b"3\\xd73 stem" in raw.getvalue()


@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]])
def test_closed_streams_swallow_what_is_said(
    monkeypatch: pytest.MonkeyPatch, streams: list[str]
) -> None:
    """What Python makes of ``>&-`` and ``2>&-``."""
    for stream in streams:
        monkeypatch.setattr(sys, stream, None)
    assert detprune_here("list", monkeypatch=monkeypatch) == 0
    for stream in streams:
        getattr(sys, stream).close()


def test_numbers_of_closed_streams_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def fstat(number: int) -> None:
        if number == 1:
            raise OSError(9, "Bad file descriptor")

    with monkeypatch.context() as patched:
        patched.setattr("os.fstat", fstat)
        patched.setattr("os.open", lambda path, _: opened.append(path))
        prepare_streams()
    assert opened == ["/dev/null"]


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_below_the_terminal_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logger("detprune")
    before = (log.level, log.propagate, log.handlers)
    monkeypatch.setattr(sys, "stdout", Full())
    try:
        log_to_terminal()
        log.info("said")
    finally:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1:]
    assert "Logging error" not in capsys.readouterr().err


@pytest.mark.parametrize("out", [None, io.TextIOWrapper(io.BytesIO(), encoding="ascii")])
def test_names_that_look_like_markup_are_names(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: io.TextIOWrapper | None,
) -> None:
    """Rich takes [red] for a colour and [/x] for an error, and a table is text wherever it is printed."""
    model = nn.ModuleDict({"a[red]": nn.Linear(8, 8), "b[/x]": nn.Linear(8, 8)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    summary = dp.Pruner(
        model, optimizer, dp.ADMM(rho=0.1), budget=dp.Budget(compression=2)
    ).summary()
    network = nn.Sequential(nn.Linear(2, 2))
    found = measure_networks(None, network, (torch.zeros(1, 2),), rounds=3)
    Console(markup=False).print(measurement_table("x[/b].pt", found))
    assert "x[/b].pt" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", out)
    assert "a[red].weight" in str(summary)
    assert "b[/x].weight" in str(summary)
    assert "×" in str(summary)


STEERING = "\x1b]0;title\x07\x1b[31mred\x9b2J\u202eback\udcff"
"""A title of the window, a colour, a cleared screen, text from right to left, and a byte that is not UTF-8."""
SHOWN = r"\x1b]0;title\x07\x1b[31mred\x9b2J\u202eback\udcff"


def test_printable_text_stays_and_the_rest_is_escaped() -> None:
    assert printable(STEERING) == SHOWN
    for text in ("a\n\tb", "½ × 日本語 [red]", "می\u200cخواهم", ""):
        assert printable(text) == text


def test_a_name_in_an_error_steers_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / STEERING).mkdir()
    assert detprune_here("measure", str(tmp_path / STEERING), monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert SHOWN in said.err
    assert "\x1b" not in said.err + said.out


def test_a_name_in_the_log_steers_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A byte that is not UTF-8, as in names out of old archives, was a traceback of the logging module."""
    log = logger("detprune")
    before = (log.level, log.propagate, log.handlers)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        log_to_terminal()
        with RunDirectory(tmp_path).log_file():
            log.warning("%s is odd", STEERING)
    finally:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1:]
    said = capsys.readouterr()
    assert f"{SHOWN} is odd" in said.out
    assert f"{SHOWN} is odd" in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "Logging error" not in said.err


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), ValueError("other")])
def test_a_refusal_in_another_thread_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """TensorBoard's thread meets a full disk, or a folder that was removed, before the run does."""
    shown: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: shown.append(failed.exc_value))

    def fail() -> None:
        raise error

    with quiet_threads():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert shown == ([] if isinstance(error, OSError) else [error])
