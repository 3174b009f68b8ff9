"""``detprune.load``: loading of networks from which channels were removed."""

from pathlib import Path
from typing import Any

from torch import nn

from detprune.channels.removal import resized_and_loaded
from detprune.errors import InputError
from detprune.files import load_tensors, named_path
from detprune.run.adapter import implementation
from detprune.run.measuring.sources import open_whole_network

_WAY_OUT = "give pruned.pt of a run that removed channels, or a YOLO checkpoint"
_KEYS = ("task", "network", "widths", "state_dict")


def load(path: str | Path) -> nn.Module:
    """The network in a ``pruned.pt`` from which channels were removed, or in a YOLO checkpoint.

    Safe: tensors and plain values are read, and of a YOLO checkpoint Ultralytics' own classes. The
    network is on the CPU, in evaluation mode.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or damaged, holds weights without a network, or a package is not
            installed that its network needs.
    """
    file = named_path(path, _WAY_OUT)
    try:
        saved = _described(file)
    except InputError as error:
        if not file.is_file():
            raise
        try:
            return open_whole_network(file).network
        except InputError as other:
            raise InputError(f"{error}\nAs a file of a framework's own: {other}") from error
    task = str(saved["task"])
    rebuild = implementation(task).rebuild
    if rebuild is None:
        raise InputError(
            f"{file} is of the task {task!r}, whose networks cannot be rebuilt; {_WAY_OUT}"
        )
    try:
        network = rebuild(saved["network"])
    except (
        TypeError,
        KeyError,
        ValueError,
        RuntimeError,
    ) as error:  # RuntimeError: too large for the memory
        raise InputError(
            f"{file} holds a description from which its network cannot be built: {error!r}; {_WAY_OUT}"
        ) from error
    return resized_and_loaded(network, saved, file).eval()


def _described(file: Path) -> dict[str, Any]:
    """The description of a network in a file, with the weights."""
    saved = load_tensors(file, _WAY_OUT)
    if lacking := [key for key in _KEYS if key not in saved]:
        raise InputError(
            f"{file} holds no network from which channels were removed (it lacks {', '.join(lacking)}). Weights of "
            "an unchanged network load as ever: model.load_state_dict(torch.load(path))"
        )
    return saved
