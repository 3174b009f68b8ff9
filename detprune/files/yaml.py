"""YAML without silent surprises, and with limits; every error has file, line and column.

It is PyYAML's safe loader (YAML 1.1), which here refuses values that it would convert silently: a key that occurs
twice, octal numbers, numbers to the base 60, dates, infinities, bytes. Text such as ``1e-3`` is a number, as in
YAML 1.2. Depth, size and aliases are limited, because a small file can expand to gigabytes.
"""

import datetime
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import Mark, MarkedYAMLError

from detprune.errors import InputError
from detprune.files.contents import read_text

_LARGEST = 1_000_000  # bytes, which take seconds to parse; recipes have a few thousand
_DEEPEST = 100  # levels; recipes have five
_NODES = 100_000  # values, with every alias expanded
_DIGITS = 40  # characters of a whole number; longer ones are no quantity, and slow to convert

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$|^[-+]?\.[0-9]+[eE][-+]?[0-9]+$"
)
_OCTAL = re.compile(r"^[-+]?0o?[0-7_]+$")
# blanks that look like a space and are none to YAML; pages on the web and word processors write them
_BLANKS = "\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_BLANK_AS_SPACE = re.compile(rf"^[ ]*[{_BLANKS}]|(?<=[:-])[{_BLANKS}]|[{_BLANKS}]$", re.MULTILINE)
_LIKE_SPACE = "looks like a space and is none"
_WORDS = {True: "true", False: "false", None: "null"}
_TAG = "tag:yaml.org,2002:"


def load_yaml(path: Path, *, strict: bool = True) -> Any:
    """The value of a YAML file; see `parse_yaml`.

    Raises:
        InputError: what ``read_text`` and ``parse_yaml`` raise.
    """
    is_named_so = path.suffix.lower() in (".yaml", ".yml")
    way_out = "" if is_named_so else "a YAML file is wanted here, such as a recipe (.yaml)"
    return parse_yaml(read_text(path, way_out, limit=_LARGEST), str(path), strict=strict)


def parse_yaml(text: str, where: str, *, strict: bool = True) -> Any:
    """The value of a YAML text.

    Args:
        text: one document.
        where: name of the text in errors.
        strict: also refuse what YAML 1.1 turns into something that hardly anybody means by it; off for
            files that another program reads too.

    Raises:
        InputError: it is not YAML, or a value is refused; with its line and column.
    """
    kind = _Strict if strict else _Loader
    try:
        loader = kind(text)
    except yaml.reader.ReaderError as error:
        raise _unreadable(where, text, error) from error
    try:
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        raise _unreadable(where, text, error) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        said = ", ".join(str(part) for part in (error.context, error.problem) if part)
        advice = _advice(said) or ("" if _LIKE_SPACE in said else _blank_advice(text))
        raise InputError(f"{place} is not valid YAML: {said}{advice}") from error
    finally:
        loader.dispose()


def dump_yaml_text(value: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back to the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def dump_yaml_line(value: Any) -> str:
    """Plain values as YAML on one line, which `parse_yaml` reads back to the same."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=10**9,
        sort_keys=False,
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")


class _Loader(yaml.SafeLoader):
    """Limits depth, aliases and digits, and refuses a key that occurs twice."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._count = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise MarkedYAMLError(
                    None, None, f"{event.anchor!r} contains itself", event.start_mark
                )
            self._count += self._sizes.get(event.anchor, 0)
            self._check_count(event.start_mark)
            return super().compose_node(parent, index)
        before = self._count
        self._count += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            problem = f"more than {_DEEPEST} levels of lists and mappings"
            raise MarkedYAMLError(None, None, problem, event.start_mark)
        self._check_count(event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._count - before
        return node

    def _check_count(self, mark: Mark) -> None:
        if self._count > _NODES:
            problem = f"with all aliases expanded there are more than {_NODES:,} values"
            raise MarkedYAMLError(None, None, problem, mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self._refuse_twice(node)
        return super().construct_mapping(node, deep=deep)

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        seen: dict[Hashable, Mark] = {}
        for key_node, _ in node.value:
            if key_node.tag == _TAG + "merge":
                key: Any = "<<"
            elif isinstance(key_node, yaml.ScalarNode):
                key = self.construct_object(key_node)
                self.vet_key(key, key_node)
            else:
                continue  # lists and mappings as keys are refused later
            if key in seen:
                first = seen[key]
                problem = (
                    f"the key {key!r} occurs again, after line {first.line + 1}; keep one of them"
                )
                raise MarkedYAMLError(None, None, problem, key_node.start_mark)
            seen[key] = key_node.start_mark

    def vet_key(self, key: Hashable, node: yaml.ScalarNode) -> None:
        """Accept every key; ``_Strict`` refuses some."""

    def flatten_mapping(self, node: Any) -> None:
        # checked before merged keys join the mapping's own, which may override them
        if any(key.tag == _TAG + "merge" for key, _ in node.value):
            self._refuse_twice(node)
            super().flatten_mapping(node)
            own: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
            for key_node, value_node in node.value:  # the last one counts
                scalar = isinstance(key_node, yaml.ScalarNode)
                key = (key_node.tag, key_node.value) if scalar else id(key_node)
                own[key] = (key_node, value_node)
            node.value = list(own.values())

    def construct_scalar_checked(self, node: yaml.ScalarNode) -> Any:
        """A number, truth value or date; after an explicit tag its text may be anything, so errors are caught."""
        name = node.tag.removeprefix(_TAG)
        if name == "int" and len(str(node.value)) > _DIGITS:
            raise _refused(node, f"a whole number of {len(node.value):,} digits")
        try:
            value = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        except (ValueError, LookupError, AttributeError, OverflowError) as error:
            raise _refused(node, f"{str(node.value)[:_DIGITS]!r} is no {name}") from error
        return value

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Text; characters that no path and no text file can hold are refused."""
        text = self.construct_scalar(node)
        for character in text:
            if "\ud800" <= character <= "\udfff" or (character < " " and character not in "\t\n\r"):
                raise _refused(node, f"text with the character {ord(character):#06x}")
        return str(text)

    def construct_refused(self, node: yaml.Node) -> Any:
        """Refuse bytes, sets and ordered mappings, which no file here has."""
        raise _refused(node, f"the tag !!{node.tag.removeprefix(_TAG)} is not used here")


class _Strict(_Loader):
    """Also refuses values whose YAML meaning is hardly ever intended, such as dates and octal numbers."""

    def vet_key(self, key: Hashable, node: yaml.ScalarNode) -> None:
        """Refuse what is neither text nor a number, such as ``on`` and ``null``, and blanks that are no spaces."""
        if isinstance(key, str) and (found := _BLANK_AS_SPACE.search(key)):
            raise _refused(node, f"the key {key!r} has a character that {_blank(found)}")
        if key is None or isinstance(key, bool):
            text = f"the key {node.value} is {_WORDS[key]} in YAML; write '{node.value}' in quotes"
            raise _refused(node, text)

    def construct_meant(self, node: yaml.ScalarNode) -> Any:
        """A value whose YAML meaning is what its text suggests; others are refused."""
        text = str(node.value)
        value = self.construct_scalar_checked(node)
        if isinstance(value, datetime.date):
            raise _refused(node, f"{text} is a date in YAML; in quotes it is text: '{text}'")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refused(node, f"{text} is no finite number")
        if isinstance(value, int | float) and ":" in text:
            raise _refused(
                node, f"{text} is a number to the base 60 in YAML; in quotes it is text: '{text}'"
            )
        if isinstance(value, int) and _OCTAL.match(text) and len(text.lstrip("+-")) > 1:
            raise _refused(
                node,
                f"{text} is the octal number {value} in YAML; write {value}, or '{text}' for text",
            )
        return value


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that `_Loader` would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
    _kind.add_implicit_resolver(_TAG + "int", re.compile(r"^[-+]?0o[0-7]+$"), list("-+0"))
for _name in ("int", "float", "bool", "null", "timestamp"):
    _Loader.add_constructor(_TAG + _name, _Loader.construct_scalar_checked)
    _Strict.add_constructor(_TAG + _name, _Strict.construct_meant)
for _kind in (_Loader, _Strict):
    _kind.add_constructor(_TAG + "str", _kind.construct_text)
    for _name in ("binary", "set", "omap", "pairs"):
        _kind.add_constructor(_TAG + _name, _kind.construct_refused)


def _refused(node: yaml.Node, problem: str) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def _unreadable(where: str, text: str, error: yaml.reader.ReaderError) -> InputError:
    way_out = ""
    if text[error.position : error.position + 1] == "\0":
        way_out = "; it is a zero byte, as a crash of the system leaves them; write the file again, or restore it"
    return InputError(
        f"{_place(where, text, error.position)} is not valid YAML: {error.reason}{way_out}"
    )


def _place(where: str, text: str, position: int) -> str:
    before = text[:position]
    return f"{where}, line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _blank_advice(text: str) -> str:
    """What to say of the first blank that stands where YAML wants a space."""
    found = _BLANK_AS_SPACE.search(text.removeprefix("\ufeff"))
    if found is None:
        return ""
    line = text.count("\n", 0, found.start()) + 1
    return f"; line {line} has a character that {_blank(found)}"


def _blank(found: re.Match[str]) -> str:
    code = f"U+{ord(found.group()[-1]):04X}"
    return f"{_LIKE_SPACE} ({code}, often copied from a web page); type a space there"


def _advice(said: str) -> str:
    if r"'\t'" in said:
        return "; indent with spaces, not with tabs"
    if "could not determine a constructor" in said:
        return (
            "; take the tag out: a value here is text, a number, a truth value, a list or a mapping"
        )
    if "scanning an alias" in said or "undefined alias" in said:
        return "; a text that begins with * stands in quotes, for example '*.bias'"
    if "cannot start any token" in said:
        return "; a text that begins with this character stands in quotes"
    if "expected a single document" in said:
        return "; take out the line --- and what belongs to the other document"
    return ""
