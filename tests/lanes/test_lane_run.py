"""Lane runs from the command line: files, report, resume, evaluation, export, and the original's form."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lane_recipe import TINY

from command_line import detprune as call
from detprune.run.directory import RunDirectory
from detprune.run.recipe import dump_yaml, override, validate
from detprune_lanes.network.checkpoints import read_checkpoint
from detprune_lanes.recipe import LaneRecipe

pytestmark = pytest.mark.slow


def detprune(cache: Path, *arguments: object, code: int = 0, **options: Any) -> str:
    done = call(*arguments, code=code, env={"XDG_CACHE_HOME": str(cache)}, **options)
    return done.stdout if code == 0 else done.stderr


def recipe_file(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(TINY), **changes}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lanes")
    output = detprune(cache, "data", "roads", folder / "others", "--train", 1, "--test", 0)
    assert output.splitlines()[-1] == str(folder / "others")
    (folder / "others/clips/train/000001/20.jpg").rename(folder / "road.jpg")
    data = {**TINY["data"], "pictures": str(folder)}
    output = detprune(cache, "run", recipe_file(folder, data=data), "--out", folder / "run")
    (folder / "output.txt").write_text(output, encoding="utf-8")
    return folder / "run"


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["metric"] == "lane accuracy"
    assert list(summary["metrics"]["final"]) == ["lane accuracy", "F1", "FP", "FN"]
    assert summary["compression"] == pytest.approx(10, rel=1e-3)
    layers = {layer["name"]: layer["pruned"] for layer in summary["layers"]}
    assert all(pruned != name.startswith("aux_") for name, pruned in layers.items())
    assert layers["cls.0.weight"]
    assert layers["cls.2.weight"]
    assert layers["model.conv1.weight"]
    output = (finished.parent / "output.txt").read_text()
    assert "What is pruned, how far, and what is left dense" in output
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Lanes before and after pruning" in page
    assert "Other road images" in page
    assert "learn from the dense network too" in page
    for picture in ("lanes.jpg", "road_images.jpg"):
        assert (finished / "pictures" / picture).stat().st_size > 10_000
    events = RunDirectory(finished).events()
    for kind, count in (("epoch", 4), ("outer", 2), ("hard_prune_check", 2), ("stage", 3)):
        assert sum(e["event"] == kind for e in events) == count


def test_the_result_has_the_originals_form_and_its_zeros(finished: Path) -> None:
    content = torch.load(finished / "pruned.pt", weights_only=True)
    assert set(content) == {"model"}
    state = content["model"]
    assert state["cls.2.weight"].shape == (13 * 8 * 4, 2048)
    assert any(name.startswith("aux_") for name in state)
    for layer in json.loads((finished / "summary.json").read_text())["layers"]:
        assert int(torch.count_nonzero(state[layer["name"]])) == layer["nonzero"]


def test_an_interrupted_run_ends_with_the_same_bits(
    finished: Path, cache: Path, tmp_path: Path
) -> None:
    """As if killed after constrained training's first epoch: what came later is taken away."""
    run = tmp_path / "run"
    recipe = finished / "recipe.yaml"
    script = (
        "import os, sys\n"
        "from detprune.run.directory import RunDirectory\n"
        "log = RunDirectory.log\n"
        "def log_and_die(self, event):\n"
        "    log(self, event)\n"
        "    if event.event == 'epoch' and (event.stage, event.epoch) == ('constrained', 2):\n"
        "        os.kill(os.getpid(), 9)\n"
        "RunDirectory.log = log_and_die\n"
        "from detprune.run.cli.main import main\n"
        f"sys.argv = ['detprune', 'run', {str(recipe)!r}, '--out', {str(run)!r}]\n"
        "main()\n"
    )
    detprune(cache, code=-9, program=script, preloaded=None)
    detprune(cache, "run", run, "--resume", preloaded=None)
    states = [read_checkpoint(folder / "pruned.pt") for folder in (finished, run)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_evaluate_agrees_with_the_run_and_with_the_submission_that_it_writes(
    finished: Path, cache: Path, tmp_path: Path
) -> None:
    submission = tmp_path / "lanes.json"
    arguments = ["--checkpoint", finished / "pruned.pt", "--submission", submission]
    found = json.loads(
        detprune(cache, "evaluate", "lanes", finished / "recipe.yaml", *arguments).splitlines()[-1]
    )
    summary = json.loads((finished / "summary.json").read_text())
    assert found["metrics"] == summary["metrics"]["final"]
    truth = next(cache.glob("detprune/drawn/roads-*/test_label.json"))
    options = ["--predictions", submission, "--annotations", truth]
    scored = json.loads(detprune(cache, "evaluate", "tusimple", *options))
    assert scored["accuracy"] == pytest.approx(found["value"])
    assert scored["frames"] == 4


def test_export_writes_the_deployed_network(finished: Path, cache: Path) -> None:
    output = detprune(cache, "export", finished)
    assert "zero" in output
    assert (finished / "pruned.onnx").stat().st_size > 1_000_000
    error = detprune(cache, "export", finished, "--format", "tflite", code=2)
    assert "unknown export format 'tflite'; known: onnx" in error


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("model.trunk=19", "unknown trunk '19'.*known: 101"),
        ("model.size=[30, 64]", "multiples? of 32"),
        ("model.grid.cells=1", "cells of the lane grid is 1"),
        ("model={weights: a.pth, imagenet: b.pth}", "leave one of them out"),
        ("data={}", "data needs either root"),
        ("data.drawn.train=0", "train of drawn roads is 0"),
        ("data.batchsize=3", r"unknown key data\.batchsize \(did you mean 'batch_size'\?\)"),
        ("loss.similarity=-1", "loss.similarity is -1"),
        ("loss.gamma=true", "gamma: true is no number"),
        ("loss.gamma=1.0e+300", "gamma: 1e[+]300 is out of range"),
        ("data.augment.shift_x=yes", "shift_x: true is no number"),
        ("data.drawn.seed=false", "seed: false is no number"),
        ("stages.dense=null", "there is no dense baseline"),
    ],
)
def test_errors_name_the_key_and_the_way_out(assignment: str, text: str) -> None:
    values = override(copy.deepcopy(TINY), [assignment])
    with pytest.raises(ValueError, match=text):
        validate(LaneRecipe, values)


def test_adam_takes_a_pull_past_it_and_not_through_the_gradient() -> None:
    adam = "stages.constrained.optimizer.name=adam"
    validate(LaneRecipe, override(copy.deepcopy(TINY), [adam, "method={name: slr, rho: auto}"]))
    method = "method={name: slr, penalty: gradient}"
    with pytest.raises(ValueError, match=r"rho is chosen by pull.*leave penalty out"):
        validate(LaneRecipe, override(copy.deepcopy(TINY), [adam, method]))


def test_a_recipe_survives_its_own_dump() -> None:
    recipe = validate(LaneRecipe, TINY)
    assert recipe.model.trunk == "18"
    assert validate(LaneRecipe, yaml.safe_load(dump_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"root": "{}/nowhere"}, "which is no folder; give the one that holds TuSimple's"),
        ({"root": "{}", "train": ["train_*.json"]}, r"'train_\*\.json' is no file below"),
    ],
)
def test_data_that_is_not_there(
    changes: dict[str, Any], text: str, cache: Path, tmp_path: Path
) -> None:
    data = {**changes, "root": changes["root"].format(tmp_path)}
    run = tmp_path / "run"
    error = detprune(cache, "run", recipe_file(tmp_path, data=data), "--out", run, code=2)
    assert re.search(text, " ".join(error.split()))
    assert not run.exists()
