"""The names of the files that a run writes, so that a file of the user's in its folder is known, and kept."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

from detprune.files.locks import NAME as LOCK
from detprune.run import beginning, events
from detprune.run.records import SUMMARY, Stage

BEGINNING = ("recipe.yaml", "run.log", "checkpoints", "tensorboard", "progress.json")
"""Files that a run writes before its first event."""

_LATER = (events.FILE, SUMMARY, "figures", "pictures", "report.html")
_RESULTS = ("pruned.pt", "pruned.pt2", "pruned.onnx")
LATENCY_TABLE = "latency.yaml"
"""Table of a latency budget, in the folder of checkpoints."""
NEW_TABLE = f"new_{LATENCY_TABLE}"
"""The same while it is measured; a kill leaves it."""

_TABLES = (LATENCY_TABLE, NEW_TABLE)
_CHECKPOINTS = (beginning.NAME, "pruner.pt", *_TABLES, *(f"{s}.pt" for s in get_args(Stage)))

_WEIGHTS = (".pt", ".pth", ".pt2", ".ckpt", ".onnx", ".safetensors", ".engine")
_OF_TRAINERS = ("last", "best", "hard_pruned", "pruner", "shrunk", "last.detprune", "epoch")
"""First parts of the names of weights that trainers leave in the folder of a stage."""


def not_written(run: Path) -> list[str]:
    """Files and folders in a run's folder that no run writes, as paths in it.

    In the folders of stages, where trainers write under many names, only weights count.

    Raises:
        OSError: a folder cannot be read.
    """
    names = {*BEGINNING, *_LATER, *_RESULTS, LOCK}
    found = [entry.name for entry in run.iterdir() if entry.name not in names]
    for folder, is_own in _FOLDERS.items():
        for file in _files(run / folder):
            place = file.relative_to(run / folder)
            if not is_own(place):
                found.append(str(folder / place))
    return sorted(found)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder; what a link leads to is not the run's."""
    if folder.is_symlink():
        return

    def refuse(error: OSError) -> None:
        if folder.exists():
            raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent) / name for name in names)


def _is_checkpoint(place: Path) -> bool:
    if len(place.parts) == 1:
        return place.name in _CHECKPOINTS
    if place.suffix not in _WEIGHTS or place.parts[0] == "start":
        return True
    stem = place.stem.rstrip("0123456789")
    return place.suffix in (".pt", ".ckpt") and stem in _OF_TRAINERS


def _is_figure(place: Path) -> bool:
    from detprune.run.report.figures import FIGURES  # draws, so that it is slow to import

    return place.name in {f"{figure.slug}.png" for figure in FIGURES}


def _is_picture(place: Path) -> bool:
    return place.suffix in (".jpg", ".json")


def _is_event(place: Path) -> bool:
    return place.name.startswith("events.out.") or place.name == "hparams.yaml"


_FOLDERS: Mapping[Path, Callable[[Path], bool]] = {
    Path("checkpoints"): _is_checkpoint,
    Path("figures"): _is_figure,
    Path("pictures"): _is_picture,
    Path("tensorboard"): _is_event,
}
