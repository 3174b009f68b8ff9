"""Reads files that may be damaged, of another kind or written by somebody else: one reader for each kind."""

from detprune.reading.files import (
    check_output_path,
    check_regular,
    check_replaceable,
    named_path,
    read_bytes,
    read_json,
    read_text,
    utf8,
)
from detprune.reading.tensors import check_unpacked_size, load_tensors, machine_memory
from detprune.reading.weights import safe_load
from detprune.reading.yaml import dump_yaml_line, dump_yaml_text, load_yaml, parse_yaml

__all__ = [
    "check_output_path",
    "check_regular",
    "check_replaceable",
    "check_unpacked_size",
    "dump_yaml_line",
    "dump_yaml_text",
    "load_tensors",
    "load_yaml",
    "machine_memory",
    "named_path",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_text",
    "safe_load",
    "utf8",
]
