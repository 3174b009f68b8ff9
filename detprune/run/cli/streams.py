"""Standard streams that may be closed, full, or limited to ASCII."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from detprune.loggers import logger

LOGGER = logger(__name__)


def prepare_streams() -> None:
    """Keep output from ending a run: a closed stream drops it, and characters that a terminal lacks are replaced."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file would get its number, and what C code prints
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Log refusals of the system in other threads, such as TensorBoard's writer, which the run meets too and tells."""
    before = threading.excepthook

    def log(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError):
            error = (failed.exc_type, failed.exc_value, failed.exc_traceback)
            LOGGER.debug("a thread ended", exc_info=error)
        else:
            before(failed)

    threading.excepthook = log
    try:
        yield
    finally:
        threading.excepthook = before
