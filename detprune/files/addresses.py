"""What stands in the place of a path and is none here: ``s3://bucket/run``, ``me@host:run``, ``C:\\runs\\x``."""

import os
import re
from pathlib import Path

from detprune.errors import InputError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters or more: C: is a drive
_LOGIN = re.compile(r"[^/@:\s]+@[^/@:\s]+:.*")  # me@host:/data/run, as of scp and rsync
_DRIVE = re.compile(r"([A-Za-z]):[\\/](.*)")
_SHARE = re.compile(r"\\\\[^\\]+\\.+")  # \\server\share


def check_no_address(path: Path) -> None:
    """Refuse an address of another machine, or a path of Windows, as the place of results.

    A folder ``s3:`` or ``C:`` would be made for it here, or one whose name is the whole path of Windows.

    Raises:
        InputError: the path begins as an address, a drive or a share does, and there is no such folder.
    """
    drive = _DRIVE.fullmatch(str(path)) or _DRIVE.fullmatch(path.name)
    if drive and not any(os.path.lexists(place) for place in (path, f"{drive[1]}:")):
        mounted = f"/mnt/{drive[1].lower()}/{drive[2].replace(chr(92), '/')}"
        raise InputError(
            f"{drive[0]} is a path of Windows, from which folders of strange names would be made here; write the path "
            f"as this system has it (under WSL {mounted})"
        )
    if _SHARE.fullmatch(path.name) and not os.path.lexists(path):
        raise InputError(
            f"{path.name} is a share of Windows, from which a folder of that name would be made here; mount it, and "
            "write the path where it is mounted"
        )
    scheme, slash, rest = str(path).partition("/")
    login = _LOGIN.fullmatch(str(path))
    if (login or (slash and _SCHEME.fullmatch(scheme))) and not os.path.lexists(scheme):
        place = path if login else f"{scheme}//{rest}"
        raise InputError(
            f"{place} is an address, but results are written on this machine; name a folder or file here, "
            "and copy it there afterwards"
        )
