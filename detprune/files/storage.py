"""Messages of the command line where the system refuses to read or write: the cause and the way out."""

import errno
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detprune.errors import InputError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_DENIED = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT)  # reading a file may raise these too
_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
"""Something else stands where a file or a folder belongs."""
_ODD_PATH = ("Symlink loop from", "Could not determine home directory")
"""Starts of pathlib's messages for a path that leads nowhere: a circle of links, the home of an unknown user."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_SCARCE_WORDS = (
    "Too many open files",
    "can't start new thread",
    "Resource temporarily unavailable",
)
"""Parts of the RuntimeErrors that torch and Python raise for the same reasons."""
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|Cannot allocate memory|std::bad_alloc|STATUS_ALLOC_FAILED"
    r"|allocate shared memory|unable to mmap|^could not (create a (primitive|memory( object)?)|execute a primitive)$",
    re.IGNORECASE,
)
"""In the errors that torch and its libraries raise where memory ends; of the last, oneDNN's, it is the usual reason."""
_NO_SHARED_MEMORY = re.compile(
    r"unable to \w+ shared memory[^\n]*(No space left|Cannot allocate)[^\n]*"
)
_WORKER_ENDED = re.compile(r"DataLoader worker .*(is killed by signal|exited unexpectedly)")
_LITTLE = 1 << 20  # bytes; an ONNX file of a small network
_ODD_PLACE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)


def storage_reason(error: OSError | RuntimeError, folder: Path | None = None) -> str | None:
    """The system's reason for which it refused to write a file; None if the error is another one.

    Args:
        error: the error that was raised; torch wraps the system's error in a RuntimeError.
        folder: a run directory; an error that reading may raise too counts for files of this directory alone.
    """
    if isinstance(error, OSError):
        name = error.filename2 or error.filename  # a copy names its source first
        file = os.fsdecode(name) if isinstance(name, str | bytes) else ""
        place = f" {file}" if file else ""
        own = (
            folder is not None
            and file != ""
            and Path(file).absolute().is_relative_to(folder.absolute())
        )
        refused = error.errno in _FULL or (error.errno in (*_DENIED, *_IN_THE_WAY) and own)
        return f"cannot write{place}: {error.strerror}" if refused else None
    if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
        cause = error.__context__
        limit = _limit_of_files()
        unknown = (
            f"files of more than {limit:,} bytes are not allowed"
            if limit
            else "the disk may be full"
        )
        because = cause.strerror if isinstance(cause, OSError) else unknown
        return f"cannot write a checkpoint: {because}"
    return None


def _limit_of_files() -> int | None:
    """The limit on the size of a file (``ulimit -f``), in bytes; PyTorch's writer loses the system's reason."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def way_out(error: OSError | RuntimeError | MemoryError) -> str:
    """What lets the refused file be written; room helps only where a disk is full, that of temporary files too."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EROFS:
        return "let the file system be written, or use another place"
    if number in _DENIED:
        return "see that the folder is there and may be written"
    if number in _IN_THE_WAY:
        return "move away what stands in its place"
    if number == errno.EFBIG or (number is None and _limit_of_files() is not None):
        return "raise the limit of file sizes (ulimit -f), or use another disk"
    try:
        temporary = tempfile.gettempdir()
        full = shutil.disk_usage(temporary).free < _LITTLE
    except OSError:
        return "make room"
    name = error.filename if isinstance(error, OSError) else None
    there = not isinstance(name, str) or Path(name).is_relative_to(temporary)
    if full and there:  # errors of files that are open do not name them
        return f"make room in {temporary}, or set the variable TMPDIR to a folder with room"
    return "make room"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those in whose handling it was raised: frameworks clean up and fail again, and hide the first."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        yield following
        seen.append(following)
        following = following.__cause__ or following.__context__


def memory_ended(error: BaseException) -> bool:
    """Whether an error means that there is not enough memory; torch raises a RuntimeError of its own for it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    return said or isinstance(error, MemoryError)


def _worker_ended(error: BaseException) -> bool:
    """Whether a process that loads data was ended; its pipe breaks if the data loader has not noticed before."""
    if isinstance(error, OSError):
        return error.errno == errno.ECONNRESET
    return isinstance(error, RuntimeError) and _WORKER_ENDED.search(str(error)) is not None


def shortage_reason(error: BaseException) -> str | None:
    """Message for an error that means that there are no more files, processes or memory; None for another error.

    Args:
        error: the exception; torch raises a RuntimeError of its own for these reasons.
    """
    return next((said for cause in causes(error) if (said := _shortage(cause)) is not None), None)


def _shortage(error: BaseException) -> str | None:
    if isinstance(error, RuntimeError) and (found := _NO_SHARED_MEMORY.search(str(error))):
        return (
            f"there is not enough shared memory ({found[0]}), by which processes that load data hand over batches; "
            "give /dev/shm more room (--shm-size of docker), or write workers: 0, or take a smaller batch"
        )
    if memory_ended(error):
        # the error of a process that loads data is a whole traceback
        lines = (str(error).strip() or "MemoryError").splitlines()
        reason = next((line for line in lines if _NO_MEMORY.search(line)), lines[0])
        return (
            f"there is not enough memory ({reason}); take a smaller batch, smaller images or fewer workers, or a "
            "larger machine"
        )
    if _worker_ended(error):
        reason = str(error).splitlines()[0]
        return (
            f"a process that loads data was ended from outside ({reason}), most often because memory or shared memory "
            "(/dev/shm; --shm-size of docker) had ended; take fewer workers or a smaller batch"
        )
    if isinstance(error, OSError):
        scarce, said = error.errno in _SCARCE, error.strerror or str(error)
    else:
        scarce, said = any(words in str(error) for words in _SCARCE_WORDS), str(error)
    if not scarce:
        return None
    return (
        f"the system gives no more files or processes ({said.splitlines()[0]}); raise the limits (ulimit -n, "
        "ulimit -u), or take fewer workers"
    )


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Turn refusals of the system into messages, for commands without a run that could be continued.

    Raises:
        StorageError: a disk that is full, a limit of file size, a file system that is read-only, no more files,
            processes or memory.
        InputError: a place that may not be entered, or a path that is too long.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if (said := shortage_reason(error)) is not None:
            raise StorageError(f"{said}, then call the command again") from error
        if isinstance(error, MemoryError):
            raise
        if (said := storage_reason(error)) is not None:
            raise StorageError(f"{said}; {way_out(error)}, then call the command again") from error
        if isinstance(error, OSError) and error.errno in _ODD_PLACE and error.filename:
            raise InputError(
                f"cannot read or write {error.filename}: {error.strerror}; {_allow(error)}name another place"
            ) from error
        if str(error).startswith(_ODD_PATH):
            raise InputError(f"a path leads nowhere: {error}; name another place") from error
        raise


def _allow(error: OSError) -> str:
    """Advice on a permission that is missing; a file of another user is seldom the only one in its folder."""
    if not isinstance(error, PermissionError):
        return ""
    with suppress(OSError):
        if os.stat(error.filename).st_uid != os.geteuid():
            return (
                "it belongs to another user: give the permission to it and to what lies beside it (chown -R makes "
                "them yours), or "
            )
    return "give the permission to, or "
