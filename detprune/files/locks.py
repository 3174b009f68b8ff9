"""Locks of run folders: only one process at a time writes into a folder.

The lock is ``flock`` on the file ``.lock`` in the folder. The kernel releases it when the process dies, however it
dies, so that a lock never outlives its holder, and none has to be judged stale. Over NFS and the usual cluster file
systems it works across machines. The file lies in the folder, so that a run may be renamed while it runs. It holds
the holder's process number and machine, for the error message of a second process; it is deleted at the end.

Forked processes, such as the workers of a data loader, inherit ``flock`` and outlive a killed run by seconds. So they
close it when they start. (POSIX record locks are not inherited, but any other opening and closing of the file in the
same process would drop them.)

Where a file system has no locks, the content of the file decides: a holder on this machine that is dead (or whose
number another process has by now) is ignored; a holder on another machine is taken to be alive.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from detprune.errors import InputError
from detprune.files.processes import HOST, is_alive, is_suspended, start_mark
from detprune.loggers import logger

LOGGER = logger("detprune")

NAME = ".lock"

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_held: set[int] = set()


class FolderInUseError(InputError):
    """Another process holds the lock of the folder."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder: its number, its machine, and a mark that no other process of that number has."""

    pid: int
    host: str
    started: str | None = None

    @classmethod
    def this(cls) -> "Holder":
        """The holder for the present process."""
        return cls(os.getpid(), HOST, start_mark(os.getpid()))

    @classmethod
    def read(cls, folder: Path) -> "Holder | None":
        """The holder that a folder's lock file names; None if the file names none."""
        try:
            text = (folder / NAME).read_text(encoding="utf-8")
            found = json.loads(text)
            return cls(int(found["pid"]), str(found["host"]), found["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the holder runs on another machine."""
        return self.host != HOST


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder for the time of the block.

    Raises:
        FolderInUseError: another one holds it.
        InputError: the folder cannot be written.
    """
    file = _acquire(folder)
    _held.add(file)
    try:
        yield
    finally:
        if file in _held:  # false in a process that was forked meanwhile
            _held.discard(file)
            if _is_at(file, folder):
                _delete(file, folder)
            os.close(file)


def _delete(file: int, folder: Path) -> None:
    """Delete the lock file; empty it where the folder has become read-only, whose own error has to be seen."""
    try:
        (folder / NAME).unlink()
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, 0)


def _acquire(folder: Path) -> int:
    while True:
        try:
            file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if isinstance(error, PermissionError) and os.access(folder, os.W_OK):
                raise InputError(
                    f"cannot open {folder / NAME}: {error.strerror}; {_permit(folder)}"
                ) from error
            raise InputError(
                f"cannot write into {folder}: {error.strerror}; choose another place with --out"
            ) from error
        try:
            _lock(file, folder)
            if _is_at(file, folder):
                record = json.dumps(asdict(Holder.this())).encode()
                os.ftruncate(file, 0)
                os.pwrite(file, record + b"\n", 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder has just deleted the file


def _permit(folder: Path) -> str:
    """What lets the lock file be opened for writing."""
    if (folder / NAME).stat().st_uid == os.geteuid():
        return f"it is yours, but write-protected: chmod -R u+w {folder}"
    return (
        "another user began this, so that its files are theirs: give them all to yourself (chown -R), or go on as "
        "that user"
    )


def check_free(folder: Path) -> None:
    """Check that no other process holds the folder, and leave all as it is.

    Raises:
        FolderInUseError: one does.
    """
    try:
        file = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _in_use(folder, Holder.read(folder)) from None
    finally:
        os.close(file)


def _lock(file: int, folder: Path) -> None:
    before = Holder.read(folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _in_use(folder, before) from None
        if error.errno not in _WITHOUT_LOCKS:
            raise InputError(f"cannot lock {folder / NAME}: {error.strerror}") from error
        if before is not None and (before.is_elsewhere or is_alive(before.pid, before.started)):
            raise _in_use(folder, before) from None
        return
    if before is not None and before.is_elsewhere:
        LOGGER.warning(
            "%s was held by process %d on %s, which ended without releasing it; if that process still runs, "
            "because the locks of this file system do not reach this machine, stop one of the two",
            *(folder, before.pid, before.host),
        )


def _in_use(folder: Path, holder: Holder | None) -> FolderInUseError:
    if holder is None:
        who, remedy = "another process", "wait for its end"
    elif holder.is_elsewhere:
        who = f"process {holder.pid} on {holder.host}"
        remedy = (
            f"wait for its end, or end it there; if it is dead there, delete {folder / NAME} and "
            "start again"
        )
    elif is_suspended(holder.pid):
        who = f"process {holder.pid} on {holder.host} (this machine), which is suspended (ctrl-Z)"
        remedy = f"let it go on with: kill -CONT {holder.pid} (or fg, in its own shell)"
    else:
        who = f"process {holder.pid} on {holder.host} (this machine)"
        remedy = f"wait for its end, or end it with: kill {holder.pid}"
    return FolderInUseError(
        f"{folder} is in use by {who}; {remedy}; or choose another place with --out"
    )


def _is_at(file: int, folder: Path) -> bool:
    """Whether the open file is still the folder's lock, not one that was deleted or moved away."""
    try:
        return os.path.samestat(os.fstat(file), (folder / NAME).stat())
    except OSError:
        return False


def _forget() -> None:
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
