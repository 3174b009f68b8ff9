"""Opens files of tensors without running anything that they hold."""

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError
from detprune.reading.files import check_regular

# torch's restricted unpickler interprets whatever bytes it is given, so that a file that is no
# checkpoint can fail in any of these ways; a damaged zip archive is a RuntimeError or an OSError
UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
)
"""What ``torch.load`` raises on files that it cannot read, depending on the damage."""


def unpickle_tensors(path: Path) -> object:
    """What ``torch.save`` wrote into a file, on the CPU; raises one of `UNREADABLE` where it cannot be read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    return content


def load_tensors(path: Path, way_out: str) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote into a file: tensors on the CPU, and plain values.

    Args:
        path: the file.
        way_out: what to delete, or to give instead, where it cannot be used.

    Raises:
        InputError: the file is missing, no file, empty or damaged, holds no dictionary with names, or
            would run code when it is opened.
    """
    if not check_regular(path, way_out):
        raise InputError(f"{path} is empty; {way_out}")
    try:
        content = unpickle_tensors(path)
    except UNREADABLE as error:
        # torch's own text is left out: it advises to switch the protection off
        code = re.search(r"GLOBAL ([\w.]+\.\w+)\s", str(error))
        if code is not None:
            raise InputError(
                f"{path} was refused: safe loading takes tensors and plain values, and this file would run "
                f"{code[1]}; {way_out}"
            ) from error
        raise InputError(
            f"{path} cannot be read: it is damaged or of another format; {way_out}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(
            f"{path} holds a {type(content).__name__} without names, not what was saved there; {way_out}"
        )
    return content
