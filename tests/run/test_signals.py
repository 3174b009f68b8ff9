"""Signals that reach the processes of a data loader beside the command."""

import os
import signal

import pytest

from detprune.run.cli.signals import exit_on_signals


def test_processes_that_end_with_the_command_disturb_no_clean_up() -> None:
    """A signal reaches the processes of a data loader too, and torch raises an error when one of them ends."""

    def ended(*_: object) -> None:
        raise RuntimeError("DataLoader worker is killed by signal: Terminated")

    cleaned = []

    def stopped_work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGCHLD)
            cleaned.append(True)

    before = signal.signal(signal.SIGCHLD, ended)
    try:
        with pytest.raises(SystemExit) as stopped, exit_on_signals():
            stopped_work()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert stopped.value.code == 143
    assert cleaned


def test_a_process_that_loads_data_leaves_without_a_failure() -> None:
    """A signal to the group reaches it too; torch raises an error where it leaves with another code than 0."""
    with exit_on_signals():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in the background
            except SystemExit as stopped:
                os._exit(int(stopped.code or 0))
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
