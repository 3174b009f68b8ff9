"""Standard streams that may be closed, full or know ASCII alone."""

import os
import sys
from io import TextIOWrapper


def prepare_streams() -> None:
    """Let what is said never end a run: closed streams swallow it, characters that a terminal lacks are replaced."""
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
