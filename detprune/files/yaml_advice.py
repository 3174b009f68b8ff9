"""The way out of faults in YAML, which PyYAML's own messages lack."""

import re

# blanks that look like a space and are none to YAML; pages on the web and word processors write them
_BLANKS = "\u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_BLANK_AS_SPACE = re.compile(rf"^[ ]*[{_BLANKS}]|(?<=[:-])[{_BLANKS}]|[{_BLANKS}]$", re.MULTILINE)
_LIKE_SPACE = "looks like a space and is none"

# a part of PyYAML's message: what to do; the first that fits counts
_WAYS_OUT = {
    r"'\t'": "indent with spaces, not with tabs",
    "cannot start any token": "a text that begins with this character stands in quotes",
    "scanning a block scalar": "a text that begins with | or > stands in quotes",
    "could not determine a constructor": "take the tag out: a value here is text, a number, a truth value, a list "
    "or a mapping",
    "scanning an alias": "a text that begins with * stands in quotes, for example '*.bias'",
    "undefined alias": "a text that begins with * stands in quotes, for example '*.bias'",
    "scanning an anchor": "a text that begins with & stands in quotes",
    "expected a single document": "take out the line --- and what belongs to the other document",
    "mapping values are not allowed here": "a space follows the colon of a key, here and in the line before; keys of "
    "one mapping are indented alike; a text with a colon and a space in it stands in quotes",
    "could not find expected ':'": "a key, a colon, a space and a value make a line, as in seed: 0; look at the line "
    "before too",
    "unknown escape character": "in double quotes a backslash begins an escape; put the text in single quotes",
    "expected ',' or": "look for a bracket or quote before it that is not closed; a text with a comma or bracket "
    "stands in quotes",
    "unexpected end of stream": "look for a quote that is not closed",
    "expected the node content": "look for a value that is missing, or a bracket that is not closed",
    "expected <block end>": "keys of one mapping, and the dashes of one list, are indented alike",
    "unhashable key": "a text that begins with {, [ or ? stands in quotes",
}


def advice(said: str, text: str) -> str:
    """What follows PyYAML's message: "; " and a way out, or nothing.

    Args:
        said: the message.
        text: the whole text that is not YAML.
    """
    parts, text = [], text.removeprefix("\ufeff")
    if _LIKE_SPACE not in said and (found := _BLANK_AS_SPACE.search(text)):
        line = text.count("\n", 0, found.start()) + 1
        parts.append(f"line {line} has a character that {_described(found)}")
    parts += [way_out for part, way_out in _WAYS_OUT.items() if part in said][:1]
    return "".join(f"; {part}" for part in parts)


def blank_as_space(text: str) -> str:
    """What the first blank is that stands where YAML wants a space, and what to do; empty where there is none."""
    found = _BLANK_AS_SPACE.search(text)
    return "" if found is None else _described(found)


def _described(found: re.Match[str]) -> str:
    code = f"U+{ord(found.group()[-1]):04X}"
    return f"{_LIKE_SPACE} ({code}, often copied from a web page); type a space there"
