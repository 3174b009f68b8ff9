"""Damaged files of a detector's run: every command names the file, says what to delete, and leaves with 2."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detection_recipe import TINY

from damaged import DAMAGES, copy_run, damage, in_constrained_training, run_here, said

# isort: split
from detprune_yolo import task
from detprune_yolo.training import resumable
from detprune_yolo.training.sidecar import NAME, write_sidecar

pytestmark = pytest.mark.slow

CONSTRAINED = "checkpoints/constrained/weights"
RESUMED = (
    "progress.json",
    "checkpoints/dense.pt",
    "checkpoints/hard_pruned.pt",
    "checkpoints/final.pt",
    "checkpoints/pruner.pt",
    "pruned.pt",
)
OF_A_STAGE = (f"{CONSTRAINED}/{NAME}", f"{CONSTRAINED}/hard_pruned.pt", f"{CONSTRAINED}/pruner.pt")
OTHERS = ("missing", *DAMAGES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sidecars are kept; ``halfway.pt`` beside it is that of constrained training's first epoch."""
    folder = tmp_path_factory.mktemp("damaged")
    recipe: dict[str, Any] = copy.deepcopy(TINY)
    recipe["data"] = {"drawn": {"train": 8, "val": 4, "size": 64, "seed": 1}}
    recipe["train"]["nbs"] = 8
    for stage in recipe["stages"].values():
        stage["epochs"] = 1
    recipe["stages"]["constrained"].update(epochs=2, every=1, check_every=0)

    def write(weights: Path, state: dict[str, Any]) -> None:
        write_sidecar(weights, state)
        if (state["stage"], state["epoch"]) == ("constrained", 0):
            shutil.copyfile(weights / NAME, folder / "halfway.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "write_sidecar", write)
        patch.setattr(task, "remove_sidecar", lambda _: None)
        patch.setattr(task.DetectionTask, "illustrate", lambda _: None)
        patch.setattr("detprune.run.report.write_report", lambda _: None)
        run = run_here(recipe, folder)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return copy_run(finished, tmp_path / "run")


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


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize("name", OF_A_STAGE)
def test_a_damaged_file_of_a_stage(
    run: Path, resume: Callable[[], tuple[int, str]], name: str, how: str
) -> None:
    if (name, how) == (OF_A_STAGE[0], "missing"):
        pytest.skip("the stage is trained again")
    in_constrained_training(run)
    damage(run / name, how)
    code, error = resume()
    assert code == 2, error
    assert str(run / name) in error
    assert f"delete {run / 'checkpoints/constrained'}" in error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stage", "dense"),
        ("epoch", None),
        ("epoch", 7),
        ("done", "no"),
        ("batch", [1, 2]),
        ("model", {}),
        ("ema", [1, 2]),
        ("updates", None),
        ("optimizer", {}),
        ("optimizer", {"state": {}, "param_groups": [1]}),
        ("last_step", None),
        ("gradients", [1, 2]),
        ("buffer", None),
        ("pruner", None),
        ("pruner", {"masks": None}),
        ("best_fitness", "high"),
    ],
)
def test_a_sidecar_that_can_be_read_and_does_not_fit(
    finished: Path, run: Path, resume: Callable[[], tuple[int, str]], key: str, value: object
) -> None:
    in_constrained_training(run)
    sidecar = run / CONSTRAINED / NAME
    state = torch.load(finished.parent / "halfway.pt", weights_only=True)
    sidecar.unlink()
    torch.save({**state, key: value}, sidecar)
    code, error = resume()
    assert code == 2, error
    assert str(sidecar) in error
    assert f"delete {run / CONSTRAINED} to run this stage again" in error


@pytest.mark.parametrize("name", ["summary.json", "checkpoints/start/constrained.pt"])
def test_a_folder_in_the_place_of_a_file_that_is_written(
    run: Path, resume: Callable[[], tuple[int, str]], name: str
) -> None:
    in_constrained_training(run)
    (run / CONSTRAINED / NAME).unlink()
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    code, error = resume()
    assert code == 2, error
    assert f"{run / name}" in error
    assert "move it away" in error


@pytest.mark.parametrize("how", ["truncated", "not UTF-8", "other names"])
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("report", "summary.json"),
        ("report", "checkpoints/final.pt"),
        ("export", "pruned.pt"),
    ],
)
def test_the_other_commands(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
    how: str,
) -> None:
    damage(run / name, how)
    code, error = said([command, run], monkeypatch, capsys)
    assert code == 2, error
    assert name in error
    assert any(way in error for way in ("delete", "finish it with", "put back", "move it away"))
