"""Prepares docstrings for napoleon: one entry a name, and no types where a text has a colon."""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_SECTIONS = ("Attributes:", "Args:")
_COLON = "\ue000"  # stands for a colon that is none of napoleon's


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Change the lines of one docstring in place, before napoleon reads them."""
    if what == "data" and hasattr(obj, "line"):  # an adapter: its class's docstring is not its own
        lines[:] = [f"The adapter that an entry point names: {obj.line}."]
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", _COLON) for line in lines]
        return
    prepared: list[str] = []
    inside, returns, names = False, False, [""]
    entry: list[str] = []

    def close() -> None:
        for each in names if entry else []:
            prepared.extend([f"    {each}: {entry[0]}", *entry[1:]])
        entry.clear()

    for line in lines:
        if line and not line.startswith(" "):
            close()
            inside, returns = line in _SECTIONS, line == "Returns:"
        elif returns:
            line = line.replace(":", _COLON)
        several = re.match(r"    (\w+(?:, \w+)+): (.*)", line) if inside else None
        if several:
            close()
            names = several[1].split(", ")
            entry.append(several[2])
        elif entry and line.startswith("     "):
            entry.append(line)
        else:
            close()
            prepared.append(line)
    close()
    lines[:] = prepared


def restore(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put the colons back, after napoleon."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the steps around napoleon's own (priority 500)."""
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
