"""Fixtures around the tiny recipe."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY

from command_line import Call, detprune_here, fork_runs
from damaged import run_here


@pytest.fixture
def tiny() -> dict[str, Any]:
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny_file(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe with its dense stage alone, of an epoch."""
    stages = {
        stage: {**spec, "epochs": int(stage == "dense")} for stage, spec in TINY["stages"].items()
    }
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    data = {**TINY["data"], "train_limit": 32, "test_limit": 10}
    path.write_text(yaml.safe_dump({**TINY, "data": data, "stages": stages}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    """A finished run of that recipe."""
    return run_here(yaml.safe_load(recipe.read_text(encoding="utf-8")), recipe.parent)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call detprune in this process, runs of studies in preloaded ones; it must leave with the code."""
    fork_runs(monkeypatch)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        found = detprune_here(*words, monkeypatch=monkeypatch)
        said = capsys.readouterr()
        assert found == code, said.out + said.err
        return subprocess.CompletedProcess(words, found, said.out, said.err)

    return run


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that writes a checkpoint and is done."""

    def run(_adapter: object, _recipe: object, run: Any) -> None:
        run.save(run.pruned, {"new": torch.ones(1)})
        run.write_json("summary.json", {})

    monkeypatch.setattr("detprune.run.cli.run._run", run)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Calls detprune in this process, in a working directory; returns exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "900")

    def call(*arguments: object) -> tuple[int, str]:
        code = detprune_here(*arguments, monkeypatch=monkeypatch)
        said = capsys.readouterr()
        return code, " ".join((said.err + said.out).split())

    return call
