"""The first recipe for a checkpoint: what somebody wants of it, and the adapter that writes the recipe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detprune.errors import InputError
from detprune.files import dump_yaml_line, parse_yaml
from detprune.run.adapter import adapter_entry_points, implementation, load_adapter


@dataclass(frozen=True)
class FirstRun:
    """What somebody wants of a checkpoint.

    Attributes:
        checkpoint: the trained network.
        budget: the share that is left, by its name in a recipe: ``{"macs": 0.5}``.
        data: the data set; None: the one that the checkpoint names.
        epochs: of constrained training and retraining together; None: a share of the checkpoint's own.
    """

    checkpoint: Path
    budget: Mapping[str, float]
    data: Path | None = None
    epochs: int | None = None

    @property
    def name(self) -> str:
        """Name of the run: the checkpoint's with the budget; what no name of a run may hold becomes ``_``."""
        parts = [self.checkpoint.stem, *(f"{k}_{value:g}" for k, value in self.budget.items())]
        return re.sub(r"[^\w.+-]", "_", "_".join(parts))


def first_recipe(wanted: FirstRun) -> str:
    """A commented recipe, by the first adapter that writes recipes for checkpoints.

    Raises:
        InputError: there is no such adapter, it says what is wrong with checkpoint or data, or their names hold
            what no recipe can.
    """
    for path in (wanted.checkpoint, wanted.data):
        if path is not None and not _fits_a_recipe(str(path)):
            raise InputError(
                f"{str(path)!a} holds characters that no recipe can (line breaks, control characters or bytes "
                "that are not UTF-8); rename the file or its folder"
            )
    missing = None
    for name in adapter_entry_points():
        try:
            if load_adapter(name).implement is None:
                continue
            write = implementation(name).first_recipe
        except InputError as error:
            missing = error
            continue
        if write is not None:
            return write(wanted)
    raise InputError(
        "no adapter is usable that writes a recipe for a checkpoint"
        + ("" if missing is None else f": {missing}")
    )


def _fits_a_recipe(text: str) -> bool:
    """Whether a text is one line that YAML can hold."""
    try:
        return text.splitlines() == [text] and parse_yaml(dump_yaml_line([text]), "") == [text]
    except InputError:
        return False
