"""Bytes, text and JSON of files; every error is an ``InputError`` that names the file and the way out."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detprune.errors import InputError
from detprune.files.addresses import check_no_address
from detprune.files.temporaries import temporary_name

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_JSON_DEPTH = "its lists or objects are nested too deeply"


def named_path(path: object, way_out: str) -> Path:
    """The path that a user gave, with ``~`` replaced.

    Raises:
        InputError: the value is no text and no path, or names the home of an unknown user.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"the path is of type {type(path).__name__}, allowed are text and paths; {way_out}"
        )
    try:
        return Path(path).expanduser()
    except (RuntimeError, TypeError) as error:  # TypeError: a path of bytes
        raise InputError(f"cannot read {path!s}: {error}; {way_out}") from error


def check_regular(path: Path, way_out: str = "") -> int:
    """Check that a path is a regular file, because anything else may block for ever; return its size in bytes.

    Args:
        path: the file; symbolic links are followed.
        way_out: what to do about it; the message ends with it.

    Raises:
        InputError: it is missing, a folder, a pipe, a socket, a device, or cannot be reached.
    """
    after = f"; {way_out}" if way_out else ""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"cannot read {path}: {_reason(error)}{after}") from error
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise InputError(f"cannot read {path}: it is {name}, not a file{after}")
    return found.st_size


def read_bytes(path: Path, way_out: str = "", *, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        way_out: what to do if the file cannot be read.
        limit: bytes that it may have.

    Raises:
        InputError: what ``check_regular`` raises, a file that cannot be read, or one beyond the limit.
    """
    after = f"; {way_out}" if way_out else ""
    size = check_regular(path, way_out)
    if limit is not None and size > limit:
        raise InputError(f"{path} has {size:,} bytes, allowed are {limit:,}{after}")
    try:
        with path.open("rb") as file:
            # files below /proc report a size of 0
            content = file.read() if limit is None else file.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {_reason(error)}{after}") from error
    if limit is not None and len(content) > limit:
        raise InputError(f"{path} has more than the {limit:,} bytes that are allowed{after}")
    return content


def read_text(path: Path, way_out: str = "", *, limit: int | None = None) -> str:
    """The UTF-8 text of a regular file, without a byte order mark; raises what ``read_bytes`` and ``utf8`` do."""
    return utf8(read_bytes(path, way_out, limit=limit), str(path), way_out)


def utf8(content: bytes, where: str, way_out: str = "") -> str:
    """Decode UTF-8, and remove a byte order mark.

    Raises:
        InputError: it is not UTF-8; says at which line and column.
    """
    after = f"; {way_out}" if way_out else ""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise InputError(
            f"{where}, line {line}, column {column}: the byte {content[error.start]:#04x} is not UTF-8, the "
            f"encoding of all text here{after}"
        ) from error


def check_utf8_path(path: Path) -> None:
    """Check that a path is text, for frameworks that write it into files of text.

    Raises:
        InputError: it holds bytes that are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the path {str(path)!a} is not UTF-8, but it is written into files of text; rename the folder, or use "
            "another one"
        ) from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, way_out: str, kind: type[Any] = dict, *, limit: int | None = None) -> Any:
    """The JSON value in a file that detprune wrote.

    Args:
        path: the file.
        way_out: what to delete, or to write again, if the file is damaged.
        kind: type of the value, ``dict`` or ``list``.
        limit: bytes that it may have.

    Raises:
        InputError: what ``read_text`` raises, it is empty or not JSON, or another kind of value.
    """
    text = read_text(path, way_out, limit=limit)
    if not text.strip():
        raise InputError(f"{path} is empty, not JSON; {way_out}")
    value = parse_json(text, str(path), way_out)
    if not isinstance(value, kind):
        wanted = "a list" if kind is list else "an object"
        raise InputError(f"{path} holds {str(value)[:40]!r}, not {wanted} of JSON; {way_out}")
    return value


def parse_json(text: str, where: str, way_out: str) -> Any:
    """The value of a JSON text.

    Raises:
        InputError: it is not JSON, also because of its depth or of a number with thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{where} is not JSON: {_JSON_DEPTH}; {way_out}") from error
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}; {way_out}") from error


def check_replaceable(path: Path) -> None:
    """Check that a path is free, or holds a file or link that another file may replace.

    Raises:
        InputError: it is a folder, a device, a pipe or a socket.
    """
    try:
        found = os.lstat(path)
    except (OSError, ValueError):  # nothing is there, or writing there will fail
        return
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise InputError(
                f"cannot write {path}: {name} is there; move it away, or choose another place"
            )


def check_output_path(
    path: Path,
    option: str,
    *,
    makes_folder: bool = False,
    replaces: Callable[[Path], bool] | None = None,
) -> None:
    """Check, before any long work starts, that a file can be written at a path.

    Args:
        path: path of the file to be written; it need not exist.
        option: the option by which the user gave it, for example ``--out``.
        makes_folder: the folder is made where it is missing.
        replaces: whether a file that is there is one of the command's own kind, which may be replaced; by default
            any file may.

    Raises:
        InputError: it is an address, there is no such folder, it cannot be written, the name is too long, or something
            else than a file is there, or a file that is not to be replaced.
    """
    check_no_address(path)
    way_out = f"choose another {option}"
    folder = path.parent
    try:
        while makes_folder and not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{option} is {path}, but {folder} is no folder; {way_out}")
        if not folder.is_dir():
            raise InputError(
                f"{option} is {path}, but there is no folder {folder}; make it, or {way_out}"
            )
        if os.path.lexists(path):
            found = os.stat(path)
            kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), None)
            if kind is not None:
                raise InputError(f"{option} is {path}, which is {kind}; {way_out}")
            if replaces is not None and found.st_size and not replaces(path):
                raise InputError(
                    f"{option} is {path}, which holds something else than this command writes, so that it is not "
                    f"replaced; {way_out}, or move it away"
                )
        probe = folder / temporary_name(path).name
        probe.touch(exist_ok=False)
        probe.unlink()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{option} is {path}: {_reason(error)}; {way_out}") from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
