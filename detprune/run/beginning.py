"""What a run began with, kept in ``checkpoints/beginning.json``: its recipe, and the facts of its data.

A run that is resumed mixes stages of before and after. Where the data were exchanged in between, metrics of
its stages cannot be compared, and the run is refused. Where ``recipe.yaml`` was edited, which is a way to give
a run more epochs or another path, the keys are named in the log and in the report.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from detprune.errors import InputError
from detprune.files import read_json
from detprune.loggers import logger
from detprune.run.directory import RunDirectory, is_main_process
from detprune.run.recipe import Recipe, spelled_out

LOGGER = logger(__name__)

NAME = "beginning.json"
_DIGITS = 12
_PIECE = 64  # bytes of an image that are compared


def digest(parts: Iterable[object]) -> str:
    """A short number that changes when any of the parts does."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()[:_DIGITS]


def file_fact(file: str | Path) -> tuple[str, str, int]:
    """Folder, name and size of a file, which stay when a data set is moved; -1 where there is none."""
    path = Path(file)
    return path.parent.name, path.name, path.stat().st_size if path.is_file() else -1


def pixels_fact(images: Iterable[str | Path]) -> str:
    """A digest of a piece from the middle of each image, which tells images of one name and one size apart."""
    return digest(map(_middle, images))


def _middle(file: str | Path) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            opened.seek(os.fstat(opened.fileno()).st_size // 2)
            return opened.read(_PIECE)
    except OSError:  # who trains on the image says what is wrong with it
        return b""


def content_fact(file: str | Path) -> tuple[str, bytes]:
    """Name and content of a small file, such as one of labels; empty where there is none."""
    path = Path(file)
    return path.name, path.read_bytes() if path.is_file() else b""


def check_beginning(
    recipe: Recipe, run: RunDirectory, facts: Callable[[], Mapping[str, str]]
) -> list[str]:
    """Note what a new run begins with; compare a run that is resumed with what it began with.

    Args:
        recipe: as it is now.
        run: its directory.
        facts: ``NetworkTask.data_facts``, which gives those of the data as they are now.

    Returns:
        What a reader of the report has to know about a recipe that was edited.

    Raises:
        InputError: the data are not those that the run began with.
    """
    if not is_main_process():
        return []
    file = run.checkpoints / NAME
    now = {"recipe": recipe.model_dump(mode="json"), "data": dict(facts())}
    has_trained = os.path.lexists(run.path / "metrics.jsonl")
    if not has_trained or not os.path.lexists(file):  # an earlier version noted nothing
        file.parent.mkdir(parents=True, exist_ok=True)
        run.write_json(f"{run.checkpoints.name}/{NAME}", now)
        return []
    way_out = f"delete it and continue with {run.resume_command}"
    then = read_json(file, way_out)
    if not all(isinstance(then.get(key), dict) for key in now):
        raise InputError(f"{file} has not {' and '.join(now)}; {way_out}")
    _check_data(then["data"], now["data"], run)
    edited = list(changes(spelled_out(then["recipe"], type(recipe)), now["recipe"]))
    if not edited:
        return []
    note = (
        f"recipe.yaml was edited after the run had begun: {'; '.join(edited)}. What was trained before that "
        "was trained with the first values."
    )
    LOGGER.warning("%s", note)
    return [note]


def _check_data(then: Mapping[str, Any], now: Mapping[str, str], run: RunDirectory) -> None:
    differing = [
        f"{key}: {then[key]} at the beginning, {now[key]} now"
        for key in now
        if key in then and then[key] != now[key]
    ]
    if differing:
        raise InputError(
            f"the data are not those that {run.path} began with, so that its stages cannot be compared:\n  "
            + "\n  ".join(differing)
            + "\nPut the first data back, undo what was edited in the recipe, or begin a new run with --out"
        )


def changes(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """The keys at which two recipes differ, with both values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*then, *now)):
            yield from changes(then.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif then != now:
        yield f"{path} from {json.dumps(then)} to {json.dumps(now)}"
