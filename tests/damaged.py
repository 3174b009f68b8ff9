"""Damage to files of a run, and detprune called in this process, for the tests of every adapter."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from detprune import cli

DAMAGES = ("truncated", "empty", "garbage", "not UTF-8", "other type", "other names", "folder")
_LARGE = 300_000  # bytes


def damage(file: Path, how: str) -> None:
    """Damage a file; ``missing`` removes it."""
    content = file.read_bytes()
    file.unlink()
    is_tensors = file.suffix in (".pt", ".ckpt")
    if how == "folder":
        file.mkdir()
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2] + b"\n\t:")
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "garbage":
        file.write_bytes(bytes(range(255, 127, -1)) * 4)
    elif how == "not UTF-8":
        file.write_bytes(b"\xff\xfe" + content)
    elif how == "other type":
        torch.save([1, 2], file) if is_tensors else file.write_text("[1, 2]", encoding="utf-8")
    elif how == "other names":
        torch.save({"a": torch.ones(2)}, file) if is_tensors else file.write_text(
            '{"a": 1}', encoding="utf-8"
        )


def copy_run(finished: Path, run: Path) -> Path:
    """A copy whose large files are links: to damage one replaces it."""

    def copy(source: str, target: str) -> None:
        is_large = os.path.getsize(source) > _LARGE
        os.link(source, target) if is_large else shutil.copy2(source, target)

    shutil.copytree(finished, run, copy_function=copy)
    return run


def said(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code of a call in this process, and what it said on the error stream."""
    monkeypatch.setattr(sys, "argv", ["detprune", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), " ".join(capsys.readouterr().err.split())
