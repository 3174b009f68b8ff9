"""Opens networks from which channels were removed: ``detprune.load``."""

from pathlib import Path
from typing import Any

from torch import nn

from detprune.channels.removal import resized_and_loaded
from detprune.errors import InputError
from detprune.reading import load_tensors
from detprune.task import adapter_entry_points, load_adapter

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
    file = Path(path).expanduser()
    try:
        saved: dict[str, Any] = load_tensors(file, _WAY_OUT)
    except InputError:
        if file.is_file() and "yolo" in adapter_entry_points():
            opened = load_adapter("yolo").open
            if opened is not None:
                return opened(file)
        raise
    if lacking := [key for key in _KEYS if key not in saved]:
        raise InputError(
            f"{file} holds no network from which channels were removed (it lacks {', '.join(lacking)}). Weights of "
            "an unchanged network load as ever: model.load_state_dict(torch.load(path))"
        )
    task = str(saved["task"])
    rebuild = load_adapter(task).rebuild
    if rebuild is None:
        raise InputError(
            f"{file} is of the task {task!r}, whose networks cannot be rebuilt; {_WAY_OUT}"
        )
    try:
        network = rebuild(saved["network"])
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            f"{file} does not describe its network as it should: {error!r}; {_WAY_OUT}"
        ) from error
    return resized_and_loaded(network, saved, file).eval()
