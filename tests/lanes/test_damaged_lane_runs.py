"""Damaged files of a lane detector's run: every command names the file, says what to delete, and leaves with 2."""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lane_recipe import TINY

from damaged import DAMAGES, copy_run, damage, in_constrained_training, run_here, said
from detprune_lanes.task import LaneTask

pytestmark = pytest.mark.slow

RESUMED = (
    "progress.json",
    "checkpoints/dense.pt",
    "checkpoints/hard_pruned.pt",
    "checkpoints/final.pt",
    "checkpoints/pruner.pt",
    "pruned.pt",
)
LAST = "checkpoints/constrained/last.ckpt"
SCORES = {"lane accuracy": 0.5, "F1": 0.5, "FP": 0.5, "FN": 0.5}


@pytest.fixture(scope="module")
def no_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs that measure and draw nothing, with a cache of their own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(LaneTask, "evaluate", lambda *_: SCORES)
        patch.setattr(LaneTask, "illustrate", lambda _: None)
        yield cache


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, no_pictures: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("damaged")
    recipe: dict[str, Any] = copy.deepcopy(TINY)
    recipe["model"]["auxiliary"] = False
    recipe["data"]["drawn"] = {"train": 6, "test": 1, "seed": 1}
    recipe["stages"]["constrained"]["epochs"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detprune.run.report.write_report", lambda _: None)
        run = run_here(recipe, folder)
    yield run
    shutil.rmtree(folder)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Iterator[Path]:
    yield copy_run(finished, tmp_path / "run")
    shutil.rmtree(tmp_path)


@pytest.fixture
def resume(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, str]]:
    return lambda: said(["run", run, "--resume"], monkeypatch, capsys)


@pytest.mark.parametrize("how", ["truncated", "other names", "folder"])
@pytest.mark.parametrize("name", RESUMED)
def test_a_damaged_file_of_a_finished_stage(
    run: Path, resume: Callable[[], tuple[int, str]], name: str, how: str
) -> None:
    damage(run / name, how)
    code, error = resume()
    assert code == 2, error
    assert str(run / name) in error
    progress = "it" if name == "progress.json" else run / "progress.json"
    assert f"delete {progress} and continue with detprune run {run} --resume" in error
    assert "weights_only" not in error


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_of_a_stage(
    run: Path, resume: Callable[[], tuple[int, str]], how: str
) -> None:
    damage(in_constrained_training(run) / LAST, how)
    code, error = resume()
    assert code == 2, error
    assert LAST in error
    assert f"delete {run / 'checkpoints/constrained'} and resume" in error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_dict", None),
        ("optimizer_states", [1, 2]),
        ("loops", {}),
        ("callbacks", {"EventLog": [1, 2]}),
        ("epoch", None),
        ("pytorch-lightning_version", 2),
        ("pytorch-lightning_version", "1.4.0"),
        ("pytorch-lightning_version", "banana"),
    ],
)
def test_a_checkpoint_that_can_be_read_and_does_not_fit(
    finished: Path, run: Path, resume: Callable[[], tuple[int, str]], key: str, value: object
) -> None:
    last = in_constrained_training(run) / LAST
    state = torch.load(finished / LAST, weights_only=True, mmap=True)
    if key != "state_dict":
        state["optimizer_states"] = []  # the largest part is never reached
    last.unlink()
    torch.save({**state, key: value}, last)
    code, error = resume()
    assert code == 2, error
    assert str(last) in error
    assert f"delete {run / 'checkpoints/constrained'} and resume" in error


@pytest.mark.parametrize("how", ["truncated", "garbage", "other type", "other names", "folder"])
@pytest.mark.parametrize("command", ["export", "evaluate"])
def test_a_damaged_result(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    how: str,
) -> None:
    file = run / "pruned.pt"
    damage(file, how)
    recipe = run / "recipe.yaml"
    arguments = {
        "export": ["export", run],
        "evaluate": ["evaluate", "lanes", recipe, "--checkpoint", file],
    }
    code, error = said(arguments[command], monkeypatch, capsys)
    assert code == 2, error
    assert str(run) in error
    assert "weights_only" not in error
    if command == "export":
        assert "delete" in error or "finish it with --resume" in error


@pytest.mark.parametrize("how", ["truncated", "not UTF-8", "other names", "folder"])
def test_a_damaged_summary(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    damage(run / "summary.json", how)
    code, error = said(["report", run], monkeypatch, capsys)
    assert code == 2, error
    assert "delete it and continue with" in error
