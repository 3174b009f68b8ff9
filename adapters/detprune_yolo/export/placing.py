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
    """Copy an export to its place, where it appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if written.is_file():
        with atomic(path) as temporary:
            shutil.copyfile(written, temporary)
        return
    temporary, older = temporary_name(path), temporary_name(path.with_name(f"{path.name}.older"))
    try:
        shutil.copytree(written, temporary)
        if path.exists():
            path.rename(older)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _is_export(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (path / _MARK).is_file()
