"""The claim of a run directory for one run: the directory is made and locked, and an earlier run in it is set aside.

An earlier run to be replaced is renamed to ``.NAME.replaced`` in the same folder (``.NAME.replaced.2`` and so on if an
overwriting run was itself cut off). All of these are deleted when the new run is finished, by this process or by one
that resumes the run. So after any kill, the finished run exists until a newer one is finished. A marker file in the
folder shows that it was set aside: a folder that only has such a name belongs to the user, and is not touched.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path

from detprune.errors import InputError
from detprune.files.addresses import check_no_address
from detprune.files.folders import check_no_dead_link, why_not_made, without_parents
from detprune.files.locks import NAME as LOCK
from detprune.files.locks import check_free, hold
from detprune.files.temporaries import sweep
from detprune.run.directory import LOGGER, RunDirectory, is_main_process
from detprune.run.recipe import Recipe
from detprune.run.written import BEGINNING, not_written

_MARK = ".set_aside"
"""Marker file in a run that was set aside; it holds the name of the run in its place."""


def located(path: Path) -> Path:
    """The path with ``~``, links and ``..`` resolved; unchanged if it has none.

    A shell leaves ``~`` in ``--out=~/x``, and frameworks expand it: a run would lie in two places.

    Raises:
        InputError: it cannot be followed, is an address, or lies behind a link that leads nowhere.
    """
    check_no_address(path)
    try:
        path = path.expanduser()
        there = path.resolve()
        path.exists()
        check_no_dead_link(path)
    except OSError as error:  # the name is too long, or a folder may not be entered
        reason = error.strerror or error
        raise InputError(
            f"{path} cannot be reached: {reason}; name another folder with --out"
        ) from error
    except RuntimeError as error:  # a loop of links, or the home of a user who is not there
        raise InputError(
            f"{path} leads nowhere: {error}; name another folder with --out"
        ) from error
    return path if there == path.absolute() else there


def absolute(path: Path) -> Path:
    """An absolute path without ``~`` and ``..``; links stay, because the runs' recipes name this folder by them.

    Raises:
        InputError: ``~`` names a user who is not there, or it is an address or behind a link that leads nowhere.
    """
    check_no_address(path)
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path} leads nowhere: {error}; name another folder with --out"
        ) from error
    check_no_dead_link(path)
    return without_parents(path).absolute()


@contextmanager
def claim(path: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> Iterator[RunDirectory]:
    """Open and lock a run directory for the time of the block.

    If the block ends in an InputError before anything was done, what this process made is removed and what it set
    aside is put back. Other processes of a distributed run than the main one make and lock nothing.

    Args:
        path: path of the run directory, as ``located`` returns it.
        recipe: recipe of the run.
        resume: continue a run that is there.
        overwrite: set it aside.

    Raises:
        FolderInUseError: another process runs in it.
        InputError: what is there is no place for this run.
    """
    if not is_main_process():
        yield RunDirectory(path)
        return
    aside: Path | None = None
    done = False
    with ExitStack() as locks:
        if overwrite and path.exists():
            _check_replaceable(path)
            _check_apart(path, recipe)
            locks.enter_context(hold(path))
            aside = _set_aside(path)
        fresh = not (path / "recipe.yaml").exists()
        made: list[Path] = []
        try:
            if not resume:
                check_free(path)
            RunDirectory.check(path, recipe, resume)
            _make(path, made)
            locks.enter_context(hold(path))
            sweep(path, deep=True, held=True)
            if (path / "checkpoints").is_symlink():
                sweep(path / "checkpoints", deep=True, held=True)
            run = RunDirectory.open(path, recipe, resume)
            for earlier in _marked(path):
                LOGGER.info("%s is kept until the run in its place is finished", earlier)
            yield run
            done = True
        except (InputError, PermissionError):  # of a file of the user's, such as a teacher
            if fresh and not (path / "metrics.jsonl").exists():
                _remove(path, made)
                if aside is not None and not path.exists():
                    aside.rename(path)
                    (path / _MARK).unlink(missing_ok=True)
            raise
        finally:
            for earlier in _marked(path):
                if done:
                    _delete(earlier)
                else:
                    LOGGER.warning("the run that was to be replaced is kept in %s", earlier)


def set_aside(path: Path) -> list[Path]:
    """Folders with names of runs that were set aside for the run in a directory, the oldest first."""
    parent, stem = path.absolute().parent, f".{path.absolute().name}.replaced"
    found = []
    try:
        beside = list(parent.iterdir()) if parent.is_dir() else []
    except OSError as error:  # a folder may allow to enter, but not to list
        LOGGER.debug("runs that were set aside in %s are not seen: %s", parent, error)
        beside = []
    for folder in beside:
        number = folder.name.removeprefix(stem)
        is_ours = folder.name.startswith(stem) and (not number or number[1:].isdigit())
        if is_ours and not folder.is_symlink() and (folder / "recipe.yaml").is_file():
            found.append(folder)
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def _marked(path: Path) -> list[Path]:
    """Folders that detprune set aside, by their marker file; only these may be deleted."""
    return [folder for folder in set_aside(path) if _reads(folder / _MARK, path.absolute().name)]


def _reads(mark: Path, name: str) -> bool:
    try:
        return mark.read_bytes() == os.fsencode(name)
    except OSError:  # no mark
        return False


def _check_replaceable(path: Path) -> None:
    if path.is_file():
        raise InputError(
            f"{path} is a file, and --out is the folder of a run; choose another place with --out"
        )
    if not (path / "recipe.yaml").is_file():
        raise InputError(f"{path} holds no run (no recipe.yaml), so it is not overwritten")
    here = Path.cwd().resolve()
    if path.resolve() in (here, *here.parents):
        raise InputError(
            f"{path} is the working directory or holds it, so that it cannot be set aside; call --overwrite "
            "from elsewhere"
        )


def _check_apart(path: Path, recipe: Recipe) -> None:
    """Refuse to set a run aside whose files the new run would read.

    Raises:
        InputError: the recipe names a file of the run.
    """
    there = path.resolve()
    for key, value in _values(recipe.model_dump(mode="python")):
        try:
            file = Path(value).expanduser()
            is_inside = there in file.resolve().parents and file.exists()
        except (OSError, ValueError, RuntimeError):  # text that is no path
            continue
        if is_inside:
            raise InputError(
                f"{key} is {str(value)!r}, a file of the run that --overwrite replaces; copy it elsewhere first, "
                "or choose another place for the new run with --out"
            )


def _values(part: object, key: str = "") -> Iterator[tuple[str, str | Path]]:
    """The texts and paths in a recipe, with their keys."""
    if isinstance(part, str | Path):
        yield key, part
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _values(value, key)
    elif is_dataclass(part) and not isinstance(part, type):
        yield from _values(vars(part), key)


def _set_aside(path: Path) -> Path:
    names = (f".{path.name}.replaced{'' if n == 1 else f'.{n}'}" for n in range(1, 10_000))
    aside = next(a for a in map(path.with_name, names) if not os.path.lexists(a))
    try:
        (path / _MARK).write_bytes(os.fsencode(path.absolute().name))
        return path.rename(aside)
    except OSError as error:
        with suppress(OSError):
            (path / _MARK).unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be set aside as {aside}: {error.strerror}; choose another place with --out"
        ) from error


def _make(path: Path, made: list[Path]) -> None:
    """Make the directory, and add all folders that were made to ``made``, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
    except OSError as error:
        raise InputError(
            f"cannot write into the run directory {path}: {why_not_made(path, error)}; "
            "choose another place with --out"
        ) from error


def _delete(earlier: Path) -> None:
    """Delete a run that was replaced; files that no run writes stay, with a warning."""
    try:
        strange = [name for name in not_written(earlier) if name != _MARK]
        if strange:
            LOGGER.warning(
                "%s was replaced, and is kept because it holds what no run writes: %s",
                earlier,
                ", ".join(strange[:5]),
            )
            (earlier / _MARK).unlink(missing_ok=True)  # from now on it is the user's
            return
        shutil.rmtree(earlier)
    except OSError as error:
        LOGGER.warning("%s was replaced and cannot be deleted: %s", earlier, error.strerror)


def _remove(path: Path, made: list[Path]) -> None:
    """Remove a run that failed at its start, and the folders that were made for it if they are empty."""
    for name in (*BEGINNING, LOCK) if path.is_dir() else ():
        file = path / name
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
    for folder in reversed(made):
        if any(folder.iterdir()):
            return
        folder.rmdir()
