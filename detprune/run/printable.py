"""Text without what steers a terminal: names of files, layers and classes that errors and logs quote may hold it."""

import logging
import unicodedata

_STEERING = ("Cc", "Cf", "Cs")
"""Unicode's categories: control characters, marks such as those that turn the direction of writing, surrogates."""
_JOINERS = "\u200c\u200d"
"""Marks of the same category that Persian, Hindi and emoji are written with."""


def printable(text: str) -> str:
    """The text with control characters as escapes; line breaks and tabs stay.

    Escaped are also marks that turn the direction of writing, and bytes of a file's name that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _steers(c) else ascii(c)[1:-1] for c in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _STEERING and character not in _JOINERS


class PlainFormatter(logging.Formatter):
    """Formats log records as printable text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        return printable(super().format(record))
