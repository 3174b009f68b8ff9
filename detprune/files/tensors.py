"""Loading of files of tensors without running any code in them."""

import os
import pickle
import re
import struct
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError
from detprune.files.contents import check_regular

# torch's restricted unpickler interprets any bytes, so that a file that is no checkpoint can raise
# any of these errors; a damaged zip archive raises a RuntimeError or an OSError
UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
)
"""Errors that ``torch.load`` raises on files that it cannot read, depending on the damage."""


def check_unpacked_size(path: Path) -> None:
    """Refuse an archive whose records, unpacked, are larger than the machine's memory.

    Deflate makes up to a thousand bytes of one. What is no zip archive, or a damaged one, is left to the reader.

    Raises:
        InputError: it is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return
    memory = machine_memory()
    if memory is not None and unpacked > memory:
        raise InputError(
            f"{path} unpacks to {unpacked:,} bytes, but this machine has a memory of {memory:,}; it is no checkpoint, "
            "or one for a larger machine"
        )


def machine_memory() -> int | None:
    """Size of the machine's memory in bytes; None if the system does not tell it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def unpickle_tensors(path: Path) -> object:
    """The content of a file of ``torch.save``, on the CPU; raises one of `UNREADABLE` if it cannot be read."""
    with warnings.catch_warnings(), _default_allowlist():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


_ALLOWLIST = threading.Lock()


@contextmanager
def _default_allowlist() -> Iterator[None]:
    """Allow only torch's own safe classes, without those that Ultralytics adds for the whole process."""
    with _ALLOWLIST:
        added = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            yield
        finally:
            torch.serialization.add_safe_globals(added)


def load_tensors(path: Path, way_out: str) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote into a file: tensors on the CPU, and plain values.

    Args:
        path: the file.
        way_out: what to delete, or to give instead, if the file cannot be used.

    Raises:
        InputError: the file is missing, no file, empty or damaged, holds no dictionary with names, or
            would run code when it is opened.
    """
    if not check_regular(path, way_out):
        raise InputError(f"{path} is empty; {way_out}")
    check_unpacked_size(path)
    try:
        content = unpickle_tensors(path)
    except UNREADABLE as error:
        # without torch's own text, which advises to switch the protection off
        code = re.search(r"GLOBAL ([\w.]+\.\w+)\s", str(error))
        if code is not None:
            raise InputError(
                f"{path} was refused: safe loading takes tensors and plain values, and this file would run "
                f"{code[1]}; {way_out}"
            ) from error
        raise InputError(
            f"{path} cannot be read: it is damaged or of another format; {way_out}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(
            f"{path} holds a {type(content).__name__} without names, not what was saved there; {way_out}"
        )
    return content
