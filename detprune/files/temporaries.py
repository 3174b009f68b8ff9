"""Temporary names for files that are being written, and removal of those that a killed process left.

A file gets its own name only when it is whole. Until then it is ``.NAME.PID@HOST.tmp`` in the same folder,
where HOST is a checksum of the machine's name. A kill leaves it behind, and it may be as large as a checkpoint.
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
_CLOCK_SLACK = 2.0  # seconds; start times are known to the second, and file systems round
# Seconds after which the writer of an unchanged file is taken for dead if it was on another machine.
_UNTOUCHED = 86_400.0


def temporary_name(path: Path) -> Path:
    """The name under which this process writes the file that becomes ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}@{_NODE}.tmp")


def is_temporary(path: Path, name: str) -> bool:
    """Whether a path is a temporary name of the file ``name`` in the same folder."""
    return path.name.startswith(f".{name}.") and _NAME.fullmatch(path.name) is not None


def sweep(folder: Path, *, name: str | None = None, deep: bool = False, held: bool = False) -> None:
    """Remove temporary files that killed processes left in a folder; those of live processes stay.

    Args:
        folder: the folder; it need not exist.
        name: remove only temporary files of this file or folder.
        deep: search the folders below too; links are not followed.
        held: whether this process holds the folder's lock, so that no process of another machine writes here.
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
            continue  # its writer has just renamed it
        except OSError as error:
            LOGGER.warning(
                "%s was left by a killed process, but cannot be removed: %s", path, error.strerror
            )
    if removed:
        LOGGER.info("%s: removed unfinished files of killed processes (%d)", folder, removed)


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
    )  # a process that started after the file was written is not its writer
    return started is not None and touched < started - _CLOCK_SLACK
