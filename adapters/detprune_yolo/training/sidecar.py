# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sidecar ``last.detprune.pt`` beside ``last.pt``: the state that an exact resume needs in full precision.

Ultralytics saves the moving average and the momentum in half precision, and saves neither the live weights
nor the pruner. The sidecar holds all of these in full precision, the gradient that was accumulated when
the epoch ended, and its own record of the last complete epoch. If a kill came between the two files, the
sidecar is one epoch behind ``last.pt``; training resumes from the sidecar.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError
from detprune.files import load_tensors
from detprune.files.atomic import atomic

NAME = "last.detprune.pt"
_VERSION = 1
_KINDS: Mapping[str, tuple[type, ...]] = {
    "stage": (str,),
    "epoch": (int,),
    "done": (bool,),
    "batch": (int,),
    "batches": (int,),
    "model": (dict,),
    "ema": (dict,),
    "optimizer": (dict,),
    "pruner": (dict, type(None)),
    "updates": (int,),
    "last_step": (int,),
    "gradients": (list, type(None)),
    "buffer": (list,),
}
"""Keys that a sidecar must have → types of their values."""
_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "scaler": (dict,),
    "stopper": (dict,),
    "best_fitness": (int, float, type(None)),
    "results": (str,),
}
"""Keys that a sidecar may have → types of their values."""
_UNFIT = (
    AssertionError,
    AttributeError,
    InputError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def write_sidecar(folder: Path, state: dict[str, Any]) -> None:
    """Write the sidecar of a folder of weights, atomically."""
    with atomic(folder / NAME) as temporary:
        torch.save({"version": _VERSION, **state}, temporary)


def read_sidecar(folder: Path) -> dict[str, Any] | None:
    """The sidecar of a folder of weights, on the CPU; None where there is none.

    Raises:
        InputError: the file is damaged or of another version.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    way_out = _way_out(folder)
    state = load_tensors(path, way_out)
    if state.get("version") != _VERSION:
        raise InputError(
            f"{path} is of version {state.get('version')!r}, this detprune reads {_VERSION}; resume "
            f"with the detprune that wrote it, or delete {folder} to run this stage again"
        )
    if lacking := [key for key in _KINDS if key not in state]:
        raise InputError(f"{path} lacks {', '.join(lacking)}; {way_out}")
    known = {**_KINDS, **_OPTIONAL}
    if wrong := [key for key in state.keys() & known if type(state[key]) not in known[key]]:
        raise InputError(
            f"{path} holds another type of value as {', '.join(sorted(wrong))}; {way_out}"
        )
    return state


@contextmanager
def taken_up(folder: Path) -> Iterator[None]:
    """Turn errors of a sidecar that does not fit the training into one that says what to do.

    Raises:
        InputError: what the block raised, with the file and the way out.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _UNFIT as error:
        raise InputError(
            f"{folder / NAME} does not fit this training: {error}; {_way_out(folder)}"
        ) from error


def _way_out(folder: Path) -> str:
    return f"without it training cannot be resumed exactly: delete {folder} to run this stage again"


def remove_sidecar(folder: Path) -> None:
    """Delete the sidecar of a training that is over; it is five times as large as the network."""
    (folder / NAME).unlink(missing_ok=True)
