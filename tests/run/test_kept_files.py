"""Files of the user that no command deletes or replaces: in a run's folder, and where outputs are asked for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY

from damaged import copy_run, run_here
from detprune.files import check_output_path
from detprune.run.written import not_written
from detprune_lanes.measure.submission import is_submission

pytestmark = pytest.mark.slow

Called = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = {
        stage: {**spec, "epochs": int(stage == "dense")} for stage, spec in TINY["stages"].items()
    }
    data = {**TINY["data"], "train_limit": 32, "test_limit": 10}
    return run_here({**TINY, "data": data, "stages": stages}, tmp_path_factory.mktemp("run"))


def test_a_run_writes_what_it_is_known_to_write(finished: Path) -> None:
    assert not_written(finished) == []


@pytest.mark.usefixtures("no_training")
def test_a_file_is_no_place_of_a_run(finished: Path, tmp_path: Path, here: Any) -> None:
    (tmp_path / "best.pt").write_text("mine")
    code, said = here(
        "run", finished.parent / "tiny.yaml", "--out", tmp_path / "best.pt", "--overwrite"
    )
    assert code == 2
    assert "is a file, and --out is the folder of a run" in said
    assert (tmp_path / "best.pt").read_text() == "mine"


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "name",
    [
        *("pruned.backup.pt", "pruned.pt.old", "checkpoints/my_best.pt", "checkpoints/notes.txt"),
        *("checkpoints/dense/at_90_percent.ckpt", "figures/for_the_paper.png", "tensorboard/a.md"),
        "pictures/own/photo.png",
    ],
)
def test_a_replaced_run_with_a_file_of_the_users_is_kept(
    finished: Path, tmp_path: Path, here: Any, name: str
) -> None:
    run = copy_run(finished, tmp_path / "run")
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("mine")
    code, said = here("run", finished.parent / "tiny.yaml", "--out", run, "--overwrite")
    assert code == 0, said
    assert f"holds what no run writes: {name}" in " ".join(said.split())
    assert (tmp_path / ".run.replaced" / name).read_text() == "mine"


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("table", ["latency.yaml", "new_latency.yaml"])
def test_a_replaced_run_with_a_latency_budget_goes(
    finished: Path, tmp_path: Path, here: Any, table: str
) -> None:
    run = copy_run(finished, tmp_path / "run")
    (run / "checkpoints" / table).write_text("format: 1")
    code, said = here("run", finished.parent / "tiny.yaml", "--out", run, "--overwrite")
    assert code == 0, said
    assert not (tmp_path / ".run.replaced").exists()


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("key", ["model.weights", "distillation.teacher"])
def test_a_run_is_not_replaced_by_one_that_reads_its_files(
    finished: Path, tmp_path: Path, here: Any, key: str
) -> None:
    run = copy_run(finished, tmp_path / "run")
    link = tmp_path / "link.pt"
    link.symlink_to(run / "pruned.pt")
    for file in ("run/pruned.pt", run / "checkpoints" / "dense.pt", link):
        chosen = ("--set", f"{key}={file}", "--set", "distillation.weight=0.5")
        code, said = here(
            "run", finished.parent / "tiny.yaml", "--out", run, "--overwrite", *chosen
        )
        assert (code, f"{key} is '{file}', a file of the run that" in said) == (2, True), said
        assert not (tmp_path / ".run.replaced").exists()
        assert (run / "pruned.pt").is_file()


@pytest.mark.usefixtures("no_training")
def test_files_behind_a_link_are_not_the_runs(finished: Path, tmp_path: Path, here: Any) -> None:
    run = copy_run(finished, tmp_path / "run")
    shutil.move(run / "figures", tmp_path / "paper")
    (tmp_path / "paper" / "own.png").write_text("mine")
    (run / "figures").symlink_to("../paper")
    assert here("run", finished.parent / "tiny.yaml", "--out", run, "--overwrite")[0] == 0
    assert (tmp_path / "paper" / "own.png").read_text() == "mine"
    assert not (tmp_path / ".run.replaced").exists()


@pytest.mark.parametrize("name", ["notes.onnx", "weights.pt", "run/pruned.pt", "run/recipe.yaml"])
def test_an_export_replaces_only_a_file_of_its_format(
    tmp_path: Path, here: Called, name: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    torch.save({}, run / "pruned.pt")
    (run / "recipe.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    (tmp_path / "notes.onnx").write_text("notes")
    torch.save({}, tmp_path / "weights.pt")
    before = (tmp_path / name).read_bytes()
    code, said = here("export", run, "--out", tmp_path / name)
    assert (code, "holds something else than this command writes" in said) == (2, True), said
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("export", "run", "--out"), "holds something else than this command writes"),
        (("profile", "run", "--out"), "exists already"),
    ],
)
def test_a_file_is_not_replaced_by_way_of_a_folder_that_is_not_there(
    finished: Path, tmp_path: Path, here: Called, command: tuple[str, ...], said: str
) -> None:
    copy_run(finished, tmp_path / "run")
    notes = tmp_path / "notes.onnx"
    notes.write_text("notes")
    code, error = here(*command, "new/../notes.onnx")
    assert (code, said in error) == (2, True), error
    assert notes.read_text() == "notes"
    assert not (tmp_path / "new").exists()


LABELLED = {"lanes": [[1, 2]], "h_samples": [160, 170], "raw_file": "a.jpg"}


@pytest.mark.parametrize("content", [LABELLED, {**LABELLED, "run_time": 1}, [1], "notes"])
def test_labels_are_not_replaced_by_a_submission(
    tmp_path: Path, here: Called, content: object
) -> None:
    """A user may name the label file of the test frames in place of a new file."""
    (tmp_path / "recipe.yaml").write_text("task: lanes\n", encoding="utf-8")
    labels = tmp_path / "test_label.json"
    labels.write_text(json.dumps(content) + "\n", encoding="utf-8")
    before = labels.read_bytes()
    code, said = here("evaluate", "lanes", "recipe.yaml", "--submission", labels)
    assert (code, "holds something else than this command writes" in said) == (2, True), said
    assert labels.read_bytes() == before


def test_an_earlier_submission_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "lanes.json"
    file.write_text(json.dumps({"raw_file": "a.jpg", "lanes": [], "run_time": 1}) + "\n")
    check_output_path(file, "--submission", replaces=is_submission)
