# SPDX-License-Identifier: AGPL-3.0-or-later
"""The place of an export: its name, and what may be replaced there."""

import os
import shutil
from pathlib import Path

from detprune.errors import InputError
from detprune.files import check_replaceable
from detprune.files.atomic import atomic
from detprune.files.temporaries import temporary_name
from detprune_yolo.export.formats import Format

_MARK = "metadata.yaml"  # in every folder that Ultralytics exports


def check_place(path: Path, wanted: Format) -> None:
    """Refuse a name that Ultralytics would not recognise, or a place that holds anything but an older export.

    Raises:
        InputError: with the way out.
    """
    if not path.name.endswith(wanted.suffix) or path.name == wanted.suffix:
        raise InputError(
            f"{path} has to end in {wanted.suffix}, by which Ultralytics recognises {wanted.title}; choose another "
            "name with --out"
        )
    if not wanted.is_folder:
        check_replaceable(path)
    elif os.path.lexists(path) and not _is_export(path):
        raise InputError(
            f"{path} is there, and is no folder that Ultralytics exported; move it away, or choose another name "
            "with --out"
        )


def put(written: Path, path: Path) -> None:
    """Copy an export to its place, where it appears whole.

    Files in an older folder there that the export has not are the user's, and stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if written.is_file():
        with atomic(path) as temporary:
            shutil.copyfile(written, temporary)
        return
    temporary, older = temporary_name(path), temporary_name(path.with_name(f"{path.name}.older"))
    try:
        shutil.copytree(written, temporary)
        if path.exists():
            _keep_others(path, temporary)
            path.rename(older)
        try:
            temporary.rename(path)
        except OSError:
            if older.exists():
                older.rename(path)
            raise
        shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_others(older: Path, new: Path) -> None:
    """Copy what an older folder holds beside an export's own files into the new one; links stay links."""
    for parent, folders, files in os.walk(older):
        own = new / Path(parent).relative_to(older)
        for name in (*folders, *files):
            there, here = Path(parent) / name, own / name
            if os.path.lexists(here):
                continue
            if there.is_dir() and not there.is_symlink():
                here.mkdir()
            else:
                shutil.copy2(there, here, follow_symlinks=False)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _is_export(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (path / _MARK).is_file()
