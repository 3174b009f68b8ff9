"""Directives that write reference pages from the code itself: recipes, components, the command line."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import fields
import places
import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata


class Written(SphinxDirective):
    """Base of directives that write Markdown, which is then read as if it stood on the page."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of what ``lines`` gives."""
        self.env.note_reread()  # the code may have changed where the page has not
        text = "\n".join(self.lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def lines(self) -> Iterable[str]:
        """Lines of Markdown."""
        raise NotImplementedError


class RecipeReference(Written):
    """All keys of the recipes: of every task, then of each; of studies and progressive files."""

    def lines(self) -> Iterable[str]:
        """A section for every kind of file."""
        common = places.BASE_RECIPE
        yield from ["## Every recipe", "", fields.summary(common), ""]
        yield from _table(fields.keys(common), links=_COMPONENTS)
        shared = set(common.model_fields)
        for task, recipe in places.recipes().items():
            yield from [f"(recipe-{task})=", f"## Task `{task}`", "", fields.summary(recipe), ""]
            own = [key for key in fields.keys(recipe) if key.name not in shared]
            yield from _sections(own, prefix="")
        for title, kind in (("Studies", places.STUDY), ("Progressive pruning", places.PROGRESSIVE)):
            yield from [f"## {title}", "", fields.summary(kind), ""]
            yield from _sections(fields.keys(kind), prefix="")


class Components(Written):
    """Options of all methods or of all sets, or of the budget and the schedules of ρ."""

    required_arguments = 1
    optional_arguments = 0

    def lines(self) -> Iterable[str]:
        """A section for every component."""
        kinds: Mapping[str, Mapping[str, type]] = {
            "methods": places.METHOD_CLASSES,
            "sets": places.SET_CLASSES,
            "schedules": places.SCHEDULES,
            "budget": {"budget": places.BUDGET},
        }
        for name, kind in kinds[self.arguments[0]].items():
            label = f"option-{name.replace('_', '-')}"
            yield from [f"({label})=", f"### `{name}`", ""]
            yield from [f"{fields.summary(kind)} In Python: `dp.{kind.__name__}`.", ""]
            own = fields.keys(kind)
            yield from _table(own) if own else ["It takes no options.", ""]


class CommandLine(Written):
    """Every command, with its arguments and options."""

    def lines(self) -> Iterable[str]:
        """A section for every command."""
        whole = typer.main.get_command(places.command_line())
        for name, command in whole.commands.items():  # type: ignore[attr-defined]
            inside = getattr(command, "commands", None)
            if inside is None:
                yield from _command(f"detprune {name}", command, "##")
                continue
            yield from [f"## `detprune {name}`", "", _text(command.help), ""]
            for inner_name, inner in inside.items():
                yield from _command(f"detprune {name} {inner_name}", inner, "###")


_COMPONENTS = {
    "method": "[name, or mapping of name and options](#methods)",
    "set": "[name, or mapping of name and options](#sets)",
    "budget": "[mapping](#budget)",
}


def _sections(
    keys: list[fields.Key], prefix: str, written: dict[type, str] | None = None
) -> Iterable[str]:
    """A table, and one for every mapping among its keys; the same mapping is written once."""
    written = {} if written is None else written
    own = []
    for key in keys:
        section = key.section if key.name not in _COMPONENTS else None
        if section in written:
            keys = [
                replace(k, kind=f"{k.kind}, as `{written[section]}`") if k is key else k
                for k in keys
            ]
        elif section is not None:
            written[section] = f"{prefix}{key.name}"
            own.append((f"{prefix}{key.name}", section))
    yield from _table(keys, prefix)
    for path, section in own:
        yield from [f"### `{path}`", "", fields.summary(section), ""]
        yield from _sections(fields.keys(section), f"{path}.", written)


def _table(
    keys: list[fields.Key], prefix: str = "", links: Mapping[str, str] | None = None
) -> Iterable[str]:
    yield from ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys:
        kind = (links or {}).get(key.name, key.kind)
        default = (
            "[`unstructured`](#option-unstructured)"
            if kind != key.kind and key.name == "set"
            else key.default
        )
        yield f"| `{prefix}{key.name}` | {_cell(kind)} | {_cell(default)} | {_cell(key.meaning)} |"
    yield ""


def _command(name: str, command: Any, level: str) -> Iterable[str]:
    arguments = [p.name.upper() for p in command.params if not p.opts[0].startswith("-")]
    usage = " ".join([name, *arguments, "[OPTIONS]"])
    yield from [f"{level} `{name}`", "", "```text", usage, "```", "", _text(command.help), ""]
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    if not shown:
        return
    yield from ["| argument or option | default | meaning |", "| --- | --- | --- |"]
    for parameter in shown:
        option = parameter.opts[0].startswith("-")
        names = (
            ", ".join(f"`{opt}`" for opt in parameter.opts)
            if option
            else f"`{parameter.name.upper()}`"
        )
        if option and parameter.metavar and not getattr(parameter, "is_flag", False):
            names += f" `{parameter.metavar}`"
        help_text = parameter.help or ""
        repeats = getattr(parameter, "multiple", False) and "may be repeated" not in help_text
        several = " May be repeated." if repeats else ""
        default = "required" if parameter.required else _default(parameter)
        yield f"| {names} | {default} | {_cell((parameter.help or '') + several)} |"
    yield ""


def _default(parameter: Any) -> str:
    default = parameter.default
    if default is None or default is False or callable(default):
        return ""
    return f"`{default}`"


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: what is between double backticks is code there too."""
    return re.sub(r"\n\n(Args|Raises):.*", "", docstring or "", flags=re.DOTALL)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("recipe-reference", RecipeReference)
    app.add_directive("components", Components)
    app.add_directive("command-line", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
