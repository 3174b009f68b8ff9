"""The pages of README and docs: where they are, and the code blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in path.parts
}
"""Path from the root → file."""


@dataclass(frozen=True)
class Block:
    """A fenced block of code; ``line`` is the number of its first line of code."""

    page: str
    line: int
    language: str
    code: str

    @property
    def id(self) -> str:
        """What a failing test shows."""
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> Iterator[Block]:
    """All blocks in these languages, in the order of the pages."""
    for page, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if found[1] in languages:
                line = text.count("\n", 0, found.start(2)) + 1
                yield Block(page, line, found[1], found[2])


def commands(*languages: str) -> Iterator[tuple[str, str]]:
    """(id, command) of every line of the shell blocks, continued lines joined, comments cut off."""
    for block in blocks(*(languages or ("bash",))):
        text = block.code.replace("\\\n", " ")
        for number, line in enumerate(text.splitlines()):
            command = re.sub(r"\s+#.*", "", line).strip()
            if command and not command.startswith("#"):
                yield f"{block.page}:{block.line + number}", command
