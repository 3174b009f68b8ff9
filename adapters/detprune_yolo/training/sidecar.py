"""The sidecar ``last.detprune.pt`` beside ``last.pt``: what an exact resume needs and Ultralytics does not save.

Ultralytics keeps the moving average and the momentum in half precision, and neither the live weights
nor the pruner. The sidecar has all of it in full precision, the gradient that was accumulated when
the epoch ended, and its own record of the last whole epoch: it may lag one epoch behind ``last.pt``
if a kill came in between, and it is the one that counts.
"""

import os
from pathlib import Path
from typing import Any

import torch

from detprune.errors import InputError
from detprune.reading import load_tensors
from detprune.rundir import atomic

NAME = "last.detprune.pt"
_VERSION = 1
_KEYS = ("stage", "epoch", "done", "batch", "batches", "model", "ema", "optimizer", "pruner")


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
    way_out = (
        f"without it training cannot be resumed exactly: delete {folder} to run this stage again"
    )
    state = load_tensors(path, way_out)
    if state.get("version") != _VERSION:
        raise InputError(
            f"{path} is of version {state.get('version')!r}, this detprune reads {_VERSION}; resume "
            "with the detprune that wrote it, or run the stage again"
        )
    if lacking := [key for key in _KEYS if key not in state]:
        raise InputError(f"{path} lacks {', '.join(lacking)}; {way_out}")
    return state


def remove_sidecar(folder: Path) -> None:
    """Delete the sidecar of training that is over; it is five times as large as the network."""
    (folder / NAME).unlink(missing_ok=True)
