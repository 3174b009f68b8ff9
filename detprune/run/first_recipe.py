"""The first recipe for a checkpoint, by the adapter that writes it."""

from detprune.errors import InputError
from detprune.run.adapter import FirstRun, adapter_entry_points, implementation, load_adapter


def first_recipe(wanted: FirstRun) -> str:
    """A commented recipe, by the first adapter that writes recipes for checkpoints.

    Raises:
        InputError: there is no such adapter, or it says what is wrong with checkpoint or data.
    """
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
