"""Folders that the project fills itself: the user's cache, and sets that appear only when they are complete."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from detprune.temporaries import sweep, temporary_name


def user_cache() -> Path:
    """The folder ``detprune`` of the user's cache; not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detprune"


def complete_folder(
    folder: Path, is_there: Callable[[], bool], write: Callable[[Path], None]
) -> None:
    """Fill ``folder``, unless it is there; it appears under its name only when it is complete.

    Args:
        folder: the folder; may be missing or empty.
        is_there: whether it holds already what is to be written; raises where it holds anything else.
        write: fills the folder that it is given, which it makes.
    """
    if is_there():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, name=folder.name)
    temporary = temporary_name(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError:
        # another process may have written the same at the same time
        if not is_there():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
