"""Signals that end a command: it exits with 128 + the signal's number, as in shells (SIGTERM 143, SIGINT 130).

Frameworks treat signals differently: Lightning turns Ctrl-C into exit code 1 and SIGTERM into 0; Ultralytics dies of
SIGTERM without closing anything. So a signal raises SystemExit in the main thread. Both frameworks let that through,
and ``finally`` blocks run. A second signal kills at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit with 128 + the signal's number, whatever a framework makes of it; ignored signals stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    command = os.getpid()

    def leave(number: int, _: FrameType | None) -> None:
        if os.getpid() != command:
            raise SystemExit(0)  # a process that loads data: torch would report its failure
        received.append(number)
        for each in handlers:
            signal.signal(each, signal.SIG_DFL)
        # The signal often reaches the whole group, and torch's handler for the end of a process that loads data
        # raises an error in the midst of the clean-up. The command ends, so that it is not put back.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise SystemExit(128 + number)

    handlers = {number: signal.getsignal(number) for number in _ENDING}
    handlers = {number: old for number, old in handlers.items() if old is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, leave)
    try:
        yield
    except (Exception, SystemExit) as error:
        if received:
            raise SystemExit(128 + received[0]) from error
        raise
    finally:
        for number, old in handlers.items():
            signal.signal(number, old)
