"""Addresses such as ``s3://bucket/run`` in the place of a path."""

import os
import re
from pathlib import Path

from detprune.errors import InputError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters or more: C: is a drive


def check_no_address(path: Path) -> None:
    """Refuse an address of another machine as the place of results: a folder ``s3:`` would be made for it here.

    Raises:
        InputError: the path begins as an address does, and there is no such folder.
    """
    scheme, slash, rest = str(path).partition("/")
    if slash and _SCHEME.fullmatch(scheme) and not os.path.lexists(scheme):
        raise InputError(
            f"{scheme}//{rest} is an address, but results are written on this machine; name a folder or file here, "
            "and copy it there afterwards"
        )
