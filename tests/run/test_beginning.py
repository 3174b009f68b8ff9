"""A run that is resumed has the data that it began with, and says what was edited in its recipe."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_recipe import TINY

from command_line import detprune_here

pytestmark = pytest.mark.slow

Called = Callable[..., tuple[int, str]]


def draw(root: Path, seed: int = 0, classes: tuple[str, ...] = ("a", "b")) -> None:
    """Small images in folders, in place of those that are there."""
    shutil.rmtree(root, ignore_errors=True)
    numbers = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                values = numbers.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(values).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and a finished run on them."""
    folder = tmp_path_factory.mktemp("finished")
    draw(folder / "images")
    recipe: dict[str, Any] = copy.deepcopy(TINY)
    recipe["data"] = {
        "name": "image_folder",
        "root": "images",
        "image_size": 16,
        "batch_size": 8,
        "train_limit": 8,
    }
    recipe["stages"]["dense"]["epochs"] = 1
    recipe["stages"]["constrained"]["epochs"] = recipe["stages"]["retrain"]["epochs"] = 0
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert detprune_here("run", "recipe.yaml", monkeypatch=patch) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, with its images beside it, in the working directory."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "tiny"


def test_a_run_is_not_resumed_with_other_data(tmp_path: Path, run: Path, here: Called) -> None:
    images, before = tmp_path / "images", (run / "summary.json").read_bytes()
    for changes, said in (
        ({"seed": 1}, "training images: 8"),
        ({"classes": ("b", "c")}, "classes: a, b at the beginning, b, c now"),
        ({"classes": ("a", "b", "c")}, "classes: a, b at the beginning, a, b, c now"),
    ):
        draw(images, **changes)
        code, answer = here("run", run, "--resume")
        assert (code, said in answer) == (2, True), answer
        assert "the data are not those that" in answer
    assert (run / "summary.json").read_bytes() == before
    draw(images)
    assert here("run", run, "--resume")[0] == 0


def test_what_was_edited_in_a_recipe_is_said(tmp_path: Path, run: Path, here: Called) -> None:
    os.rename(tmp_path / "images", tmp_path / "moved")  # the same data elsewhere
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["data"]["root"], recipe["stages"]["dense"]["epochs"] = "moved", 5
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    code, answer = here("run", run, "--resume")
    note = 'stages.dense.epochs from 1 to 5; data.root from "images" to "moved"'
    assert (code, note in answer) == (0, True), answer
    notes = json.loads((run / "summary.json").read_text(encoding="utf-8"))["notes"]
    assert note in notes[-1]


def test_a_damaged_note_of_the_beginning_is_named(run: Path, here: Called) -> None:
    file = run / "checkpoints" / "beginning.json"
    for text in ("", "[1]", "{}", '{"recipe": 1, "data": {}}'):
        file.write_text(text, encoding="utf-8")
        code, answer = here("run", run, "--resume")
        assert (code, f"{file}" in answer, "delete it" in answer) == (2, True, True), answer
    file.unlink()
    assert here("run", run, "--resume")[0] == 0
