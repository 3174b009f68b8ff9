"""The first recipe for a checkpoint, by the adapter that writes it."""

from detprune.errors import InputError
from detprune.files import dump_yaml_line, parse_yaml
from detprune.run.adapter import FirstRun, adapter_entry_points, implementation, load_adapter


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
