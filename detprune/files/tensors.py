"""Loading of files of tensors without running any code in them."""

import os
import pickle
import re
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError, listed
from detprune.files.contents import check_regular
from detprune.files.storage import memory_ended

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

_CHUNK = 2**20  # bytes


def check_archive(path: Path, way_out: str) -> None:
    """Refuse an archive that unpacks to more than the machine's memory, or with bytes that were changed.

    Deflate makes up to a thousand bytes of one. ``torch.load`` compares no checksum: a bit that a disk or a copy
    turned would be another weight. Records whose checksum is 0 were written without one
    (``torch.serialization.set_crc32_options(False)``). What is no zip archive is left to the reader.

    Args:
        path: the file.
        way_out: what to do about a damaged file; the message ends with it.

    Raises:
        InputError: it is too large, damaged, or a checkpoint that was unpacked and packed again with other folders.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _check_one_folder(path, [record.filename for record in records], way_out)
            _check_unpacked_size(path, sum(record.file_size for record in records))
            for record in records:
                if record.CRC:
                    _check_bytes(archive, record, path, way_out)
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return  # the reader says what is wrong with it


def _check_one_folder(path: Path, names: Sequence[str], way_out: str) -> None:
    """Refuse what macOS makes of a checkpoint: Safari unpacks it, Finder packs it again with a folder of its own."""
    folder = next((n.split("/")[0] for n in names if n.endswith("/data.pkl")), None)
    other = sorted({name.split("/")[0] for name in names} - {folder})
    if folder is not None and other:
        raise InputError(
            f"{path} is a checkpoint that was unpacked and packed again: it holds {listed(other)} beside the folder "
            f"{folder!r}, where PyTorch takes one folder alone; pack that folder alone, or {way_out}"
        )


def _check_unpacked_size(path: Path, unpacked: int) -> None:
    memory = machine_memory()
    if memory is not None and unpacked > memory:
        raise InputError(
            f"{path} unpacks to {unpacked:,} bytes, but this machine has a memory of {memory:,}; it is no checkpoint, "
            "or one for a larger machine"
        )


def _check_bytes(
    archive: zipfile.ZipFile, record: zipfile.ZipInfo, path: Path, way_out: str
) -> None:
    try:
        with archive.open(record) as content:  # compares the checksum at its end
            while content.read(_CHUNK):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{path} is damaged: the bytes of its record {record.filename} are not those that were written (their "
            f"checksum differs); {way_out}"
        ) from error


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
        warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)  # asked for
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


def code_that_would_run(path: Path, error: Exception) -> str | None:
    """The name of the class or function at which safe loading stopped; None if it stopped for another reason.

    A file that begins as text has none, except Ultralytics' classes: its lines read as names to the loader. A link may
    lead to a file that is no checkpoint, whose lines are not for messages.
    """
    found = re.search(r"GLOBAL ([\w.]+\.\w+)\s", str(error))
    if found is None:
        return None
    with path.open("rb") as file:
        is_binary = file.read(2).startswith((b"\x80", b"PK"))
    return found[1] if is_binary or found[1].startswith("ultralytics.") else None


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
    check_archive(path, way_out)
    try:
        content = unpickle_tensors(path)
    except UNREADABLE as error:
        if memory_ended(error) and zipfile.is_zipfile(path):
            raise  # its checksums are right
        # without torch's own text, which advises to switch the protection off
        code = code_that_would_run(path, error)
        if code is not None:
            raise InputError(
                f"{path} was refused: safe loading takes tensors and plain values, and this file would run "
                f"{code}; {way_out}"
            ) from error
        raise InputError(
            f"{path} cannot be read: it is damaged or of another format; {way_out}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(
            f"{path} holds a {type(content).__name__} without names, not what was saved there; {way_out}"
        )
    return content
