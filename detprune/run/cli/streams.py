"""Standard streams that may be closed, full, or limited to ASCII."""

import os
import sys
from io import TextIOWrapper


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
