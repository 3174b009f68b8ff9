# SPDX-License-Identifier: AGPL-3.0-or-later
"""The classes and functions that a checkpoint's pickle refers to, read from its opcodes: nothing is unpickled."""

import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import IO

from detprune.errors import InputError

_PICKLES = 5  # torch's format before zip archives: magic, version, system, object, storage keys


def classes_in(path: Path) -> set[str]:
    """``module.name`` of all classes and functions that a checkpoint refers to; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            archive = file.read(2) == b"PK"
            return names_in_archive(path) if archive else names_in_pickles(path, file)
    except (OSError, InputError):
        return set()  # loading raises the error with the way out


def names_in_archive(path: Path) -> set[str]:
    """``module.name`` of all that the pickle of a torch zip archive refers to."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.namelist()
            if any(r.endswith("constants.pkl") for r in records):
                raise InputError(
                    f"{path} is a TorchScript archive, which cannot be trained; give the .pt checkpoint "
                    "that it was exported from"
                )
            pickles = [r for r in records if r.split("/")[-1] == "data.pkl"]
            if not pickles:
                raise InputError(
                    f"{path} is a zip archive and no checkpoint (no data.pkl in it); unpack it and give "
                    "the .pt file"
                )
            with archive.open(pickles[0]) as file:
                return _names(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(path, error) from error


def names_in_pickles(path: Path, file: IO[bytes]) -> set[str]:
    """``module.name`` of all that the pickles at the start of a file refer to."""
    file.seek(0)
    found: set[str] = set()
    for number in range(_PICKLES):
        try:
            found |= _names(file)
        except ValueError as error:
            if number == 0:
                # the error quotes the file, and a link may lead to one that is no checkpoint
                raise damaged(path, "neither a torch archive nor a pickle") from error
            break
    return found


def _names(file: IO[bytes]) -> set[str]:
    """``module.name`` that one pickle refers to."""
    found: set[str] = set()
    strings: list[str] = []
    memo: dict[object, str] = {}
    memoized = 0
    previous_was_text = False
    for opcode, argument, _ in pickletools.genops(file):
        is_text = False
        if opcode.name in ("GLOBAL", "INST"):
            found.add(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            found.add(".".join(strings[-2:]))
        elif "UNICODE" in opcode.name or "STRING" in opcode.name:
            strings.append(str(argument))
            is_text = True
        elif opcode.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            index = memoized if argument is None else argument
            memoized += 1
            if previous_was_text:
                memo[index] = strings[-1]
            is_text = previous_was_text
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET") and argument in memo:
            strings.append(memo[argument])
            is_text = True
        previous_was_text = is_text
    return found


def damaged(path: Path, reason: object) -> InputError:
    """The error for a file that is a checkpoint by its first bytes, but cannot be read."""
    line = str(reason).strip().splitlines()[0][:160] if str(reason).strip() else "no details"
    if "weights_only" in str(reason) or "Weights only" in line:
        line = "it is no pickle of tensors and known classes"  # torch advises to switch safe loading off
    return InputError(
        f"{path} is empty, truncated or damaged ({line}); copy or download it again, or take another "
        "checkpoint of the same run"
    )
