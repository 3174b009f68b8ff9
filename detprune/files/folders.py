"""Folders that detprune fills: the user's cache, and drawn data sets, which appear only when they are complete."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from detprune.errors import DetpruneError, InputError
from detprune.files.addresses import check_no_address
from detprune.files.temporaries import sweep, temporary_name

SET = "set.json"
"""File in a drawn data set with the settings that it was drawn from."""

_OF_SYSTEMS = {"@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "__MACOSX"}

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def user_cache() -> Path:
    """The folder ``detprune`` in the user's cache; this function does not create it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detprune"


def without_parents(path: Path) -> Path:
    """A path without ``..``: ``new/../there`` is ``there``, also where ``new`` does not exist.

    Written as it is, it would be taken for a place in ``new``, so that this folder would be made, and what is there
    already overlooked.
    """
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def output_folder(folder: Path) -> Path:
    """The absolute path, without symbolic links, of a folder to be filled; the folder need not exist.

    Raises:
        InputError: the name is too long, or it is a link that leads to itself, or an address.
    """
    check_no_address(folder)
    try:
        resolved = folder.expanduser().resolve()
        resolved.exists()
        check_no_dead_link(folder.expanduser())
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write into {folder}: {reason}; {_way_out(folder)}") from error
    return resolved


def check_no_dead_link(path: Path) -> None:
    """Refuse a place for results behind a link that leads nowhere: a new folder there, under the point at which a disk
    is to be mounted, would be hidden once it is.

    Raises:
        InputError: the path, or a folder of it, is such a link.
    """
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise InputError(
                f"{path} cannot be reached: {place} is a link to {os.readlink(place)}, which is not there; mount its "
                "disk, make that folder, or name another one"
            )


def check_listable(folder: Path, *, hidden: bool = True) -> None:
    """Refuse a folder of data that may not be listed, or holds such folders: their files would be left out in silence.

    Args:
        folder: the folder; links in it are followed.
        hidden: also look into folders whose names begin with a dot.

    Raises:
        InputError: a folder that may not be listed.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"the folder {error.filename!r} may not be listed ({error.strerror}); give the permission to, or remove it"
        ) from error

    for _, folders, _ in os.walk(folder, followlinks=True, onerror=refuse):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]


def not_a_folder(path: Path) -> Path | None:
    """What is there and is no folder: ``path`` itself or something above it; None where folders can be made."""
    return next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)


def why_not_made(folder: Path, error: OSError) -> str:
    """The reason why a folder could not be made, in words."""
    if isinstance(error, NotADirectoryError | FileExistsError) and (above := not_a_folder(folder)):
        return f"{above} is no folder"
    return str(error.strerror)


def made_by_a_system(file: Path, folder: Path) -> bool:
    """Whether a file lies in a hidden folder below ``folder``, or in one that a storage fills, as with thumbnails.

    Synology makes ``@eaDir`` and QNAP ``.@__thumb`` in every folder of images; deleted files lie in others.
    """
    between = file.relative_to(folder).parts[:-1]
    return any(name.startswith(".") or name in _OF_SYSTEMS for name in between)


def complete_folder(
    folder: Path, is_there: Callable[[], bool], write: Callable[[Path], None]
) -> None:
    """Fill ``folder``, unless it exists; it gets its name only when it is complete.

    Args:
        folder: the folder, as ``output_folder`` returns it; may be missing or empty.
        is_there: returns whether the folder is complete already; raises an error if it holds anything else.
        write: makes and fills the folder at the given path.

    Raises:
        InputError: the folder cannot be made there.
        DetpruneError: the disk is full or fails.
    """
    if is_there():
        return
    _check_place(folder)
    temporary = temporary_name(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, name=folder.name)
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        # another process may have written the same folder at the same time
        if not is_there():
            full = error.errno in _DISK
            kind = DetpruneError if full else InputError
            limit = error.errno == errno.EFBIG
            room = "raise the limit of file sizes (ulimit -f)" if limit else "make room"
            way_out = f"{room}, or {_way_out(folder)}" if full else _way_out(folder)
            raise kind(
                f"cannot write into {folder}: {error.strerror or error}; {way_out}"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _way_out(folder: Path) -> str:
    """What to do about a folder that cannot be made; nobody named one in the user's cache."""
    if folder.is_relative_to(Path(os.path.realpath(user_cache()))):
        return "set the variable XDG_CACHE_HOME to a folder that can be written"
    return "name another folder"


def _check_place(folder: Path) -> None:
    """Refuse places where a new folder would do harm.

    Raises:
        InputError: it is the working directory, which would be another folder afterwards; or below a file, or in a
            drawn set, whose images it would join.
    """
    here = Path.cwd()
    if folder in (here, *here.parents):
        raise InputError(
            f"cannot write into {folder}: it is the working directory or holds it; name a new folder in it"
        )
    if above := not_a_folder(folder.parent):
        raise InputError(f"cannot write into {folder}: {above} is no folder; {_way_out(folder)}")
    for parent in folder.parents:
        if (parent / SET).is_file():
            raise InputError(
                f"cannot write into {folder}: {parent} holds a drawn set ({SET}), whose images would be mixed "
                "with others; name another folder"
            )
