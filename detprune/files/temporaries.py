"""Temporary names for what is being written, and removal of those that a killed writer left.

A file appears under its own name only when it is whole; until then it is ``.NAME.PID@HOST.tmp`` beside it,
where HOST is a checksum of the machine's name. A kill leaves it behind, at the size of a checkpoint.
"""

import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from detprune.files.processes import HOST, is_alive, start_seconds
from detprune.loggers import logger

LOGGER = logger("detprune")

_NODE = f"{zlib.crc32(HOST.encode()):08x}"
_NAME = re.compile(r"\..+\.(\d+)(?:@([0-9a-f]{8}))?\.tmp", re.DOTALL)
_CLOCK_SLACK = 2.0  # seconds; a start is known to the second, and file systems round
_UNTOUCHED = (
    86_400.0  # seconds after which a writer on another machine, which cannot be asked, is given up
)


def temporary_name(path: Path) -> Path:
    """Where this process writes what becomes ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}@{_NODE}.tmp")


def is_temporary(path: Path, name: str) -> bool:
    """Whether a path is one at which a process writes, or wrote, what becomes ``name`` beside it."""
    return path.name.startswith(f".{name}.") and _NAME.fullmatch(path.name) is not None


def sweep(folder: Path, *, name: str | None = None, deep: bool = False, held: bool = False) -> None:
    """Remove what killed writers left in a folder; what a live process writes stays.

    Args:
        folder: need not exist.
        name: only what was to become this file or folder.
        deep: the folders below it too; links are not followed.
        held: no process of another machine writes here, because this one holds the folder's lock.
    """
    removed = 0
    for path in _found(folder, deep):
        match = _NAME.fullmatch(path.name)
        if match is None or (name is not None and not is_temporary(path, name)):
            continue
        try:
            if not _is_dead(path, int(match[1]), match[2], held):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
        except FileNotFoundError:
            continue  # its writer has just finished it
        except OSError as error:
            LOGGER.warning(
                "%s is left of a killed process and cannot be removed: %s", path, error.strerror
            )
    if removed:
        LOGGER.info(
            "%s: removed what killed processes had not finished (%d files)", folder, removed
        )


def _found(folder: Path, deep: bool) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *files))
        folders[:] = [name for name in folders if deep and not _NAME.fullmatch(name)]


def _is_dead(path: Path, pid: int, node: str | None, held: bool) -> bool:
    touched = path.lstat().st_mtime
    if node not in (None, _NODE):
        return held or time.time() - touched > _UNTOUCHED
    if not is_alive(pid):
        return True
    started = start_seconds(
        pid
    )  # a process younger than the file has only the number of its writer
    return started is not None and touched < started - _CLOCK_SLACK
