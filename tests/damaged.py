"""Damage to files of a run, and detprune called in this process, for the tests of every adapter."""

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import detprune_here

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


def run_here(recipe: Mapping[str, Any], folder: Path) -> Path:
    """Run a recipe in this process, for another one imports for seconds; returns the run's folder."""
    file, run = folder / "tiny.yaml", folder / "run"
    file.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        assert detprune_here("run", file, "--out", run, monkeypatch=patch) == 0
    return run


def in_constrained_training(run: Path) -> Path:
    """Take back a finished run to where its dense network alone was finished."""
    marks = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps({"dense": marks["dense"]}))
    (run / "summary.json").unlink()
    return run


def copy_run(finished: Path, run: Path) -> Path:
    """A copy whose large files are links: to damage one replaces it."""

    def copy(source: str, target: str) -> None:
        is_large = os.path.getsize(source) > _LARGE
        os.link(source, target) if is_large else shutil.copy2(source, target)

    shutil.copytree(finished, run, copy_function=copy)
    return run


def said(
    arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code of a call in this process, and what it said on the error stream."""
    capsys.readouterr()
    code = detprune_here(*arguments, monkeypatch=monkeypatch)
    return code, " ".join(capsys.readouterr().err.split())


def forbid_listing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder be one that may not be listed, also for root, who may list all."""
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if isinstance(path, str | os.PathLike) and Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
