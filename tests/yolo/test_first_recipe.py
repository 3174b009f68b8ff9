"""``detprune init`` and ``detprune prune``: a recipe from a checkpoint's own training, and its run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainings import tiny_model

from command_line import detprune
from detprune.errors import InputError
from detprune.files import parse_yaml
from detprune.run.adapter import FirstRun
from detprune.run.first_recipe import first_recipe as recipe_of_any

# isort: split
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.first_recipe import first_recipe
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(DrawnSet(train=16, val=6, size=64, seed=1), tmp_path_factory.mktemp("data") / "set")


def checkpoint(folder: Path, **args: Any) -> Path:
    path = folder / "best.pt"
    given = {"imgsz": 64, "batch": 8, "epochs": 100, "optimizer": "SGD", "lr0": 0.02, **args}
    save_checkpoint(path, pruned_checkpoint(tiny_model(), None, train_args=given))
    return path


def recipe(wanted: FirstRun) -> DetectionRecipe:
    return DetectionRecipe.model_validate(yaml.safe_load(first_recipe(wanted)))


def test_it_follows_the_training_of_the_checkpoint(tmp_path: Path, data: Path) -> None:
    path = checkpoint(tmp_path, mosaic=0.5, degrees=10.0, workers=0, warmup_epochs=2)
    found = recipe(FirstRun(path, {"macs": 0.4}, data))
    assert found.name == "best_macs_0.4"
    assert found.model.weights == path
    assert found.budget.macs == 0.4
    assert found.train == {
        "imgsz": 64,
        "batch": 8,
        "nbs": 8,
        "degrees": 10.0,
        "mosaic": 0.5,
        "verbose": False,
    }
    assert (found.stages.constrained.epochs, found.stages.retrain.epochs) == (13, 27)
    assert found.options("constrained")["lr0"] == 0.008
    assert found.stages.dense is None


@pytest.mark.parametrize(
    ("own", "asked", "stages"),
    [
        (100, None, (13, 27)),
        (500, None, (26, 54)),
        (3, None, (2, 4)),
        (None, None, (13, 27)),
        (100, 12, (4, 8)),
        (100, 2, (1, 1)),
        # what is no number of epochs is as good as none, and never part of the recipe
        ("many", None, (13, 27)),
        ([3], None, (13, 27)),
        (math.inf, None, (13, 27)),
        (-5, None, (13, 27)),
        (10**30, None, (26, 54)),
        ("3\nmeasure: true\n#", 12, (4, 8)),
    ],
)
def test_epochs(
    tmp_path: Path, data: Path, own: Any, asked: int | None, stages: tuple[int, int]
) -> None:
    path = checkpoint(tmp_path, epochs=own)
    text = first_recipe(FirstRun(path, {"macs": 0.5}, data, asked))
    assert "measure" not in parse_yaml(text, "the recipe")
    found = recipe(FirstRun(path, {"macs": 0.5}, data, asked)).stages
    assert (found.constrained.epochs, found.retrain.epochs) == stages


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("best (1).pt", "best__1__macs_0.5"),
        ("my net, v2.pt", "my_net__v2_macs_0.5"),
        ("größe.pt", "größe_macs_0.5"),
        ("a\u3000b.pt", "a_b_macs_0.5"),
    ],
)
def test_any_name_of_a_checkpoint_gives_a_name_of_a_run(
    tmp_path: Path, data: Path, name: str, run: str
) -> None:
    path = checkpoint(tmp_path).rename(tmp_path / name)
    found = recipe(FirstRun(path, {"macs": 0.5}, data))
    assert (found.name, found.model.weights) == (run, path)


@pytest.mark.parametrize("name", ["b\nseed: 99\n#.pt", "b\x1b[31m.pt", "\udcff.pt"])
def test_names_that_no_recipe_can_hold_are_refused(data: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"holds characters that no recipe can .*rename the file"):
        recipe_of_any(FirstRun(Path(name), {"macs": 0.5}, data))


@pytest.mark.parametrize(
    ("args", "rate"),
    [
        ({}, 0.008),
        ({"optimizer": "auto"}, 0.004),
        ({"optimizer": "AdamW"}, 0.004),
        ({"lr0": math.nan}, 0.004),
    ],
)
def test_the_learning_rate_is_for_sgd(
    tmp_path: Path, data: Path, args: dict[str, Any], rate: float
) -> None:
    found = recipe(FirstRun(checkpoint(tmp_path, **args), {"macs": 0.5}, data))
    assert found.options("retrain")["lr0"] == rate


def test_the_data_set_of_the_checkpoint_is_taken(tmp_path: Path, data: Path) -> None:
    wanted = FirstRun(checkpoint(tmp_path, data=str(data)), {"parameters": 0.5})
    assert recipe(wanted).data.yaml == data
    gone = FirstRun(checkpoint(tmp_path, data="/somewhere/coco.yaml"), {"macs": 0.5})
    with pytest.raises(InputError, match=r"trained on /somewhere/coco\.yaml, .* --data"):
        first_recipe(gone)
    with pytest.raises(InputError, match=r"names no data set; .* --data"):
        first_recipe(FirstRun(checkpoint(tmp_path, data=None), {"macs": 0.5}))


def test_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    other = draw(DrawnSet(train=4, val=2, size=64, classes=3), tmp_path / "other")
    with pytest.raises(InputError, match=r"it has 6 classes, `names` lists 3"):
        first_recipe(FirstRun(checkpoint(tmp_path), {"macs": 0.5}, other))


@pytest.mark.slow
def test_init_writes_a_recipe_that_validates(tmp_path: Path, data: Path) -> None:
    path, out = checkpoint(tmp_path), tmp_path / "recipe.yaml"
    output = detprune("init", path, "--data", data, "--out", out, preloaded="yolo").stdout
    assert f"run it with: detprune run {out}" in output
    assert out.read_text().startswith("# Prune best.pt to 0.5 of its MACs")
    assert "macs: 0.5" in detprune("validate", out, preloaded="yolo").stdout
    again = detprune("init", path, "--data", data, "--out", out, code=2, preloaded="yolo")
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--macs", "0.5", "--parameters", "0.4"), "--macs and --parameters are given; give one"),
        (("--macs", "1.5"), "macs is 1.5, allowed is"),
        (("--latency", "nan"), "--latency is nan, allowed is a number above 0, up to 1"),
        (
            ("--macs", "0.5", "--set", "budget.macs=0.8"),
            "--macs is 0.5 and --set budget.macs is 0.8; give one of them",
        ),
        (("--macs", "0.5", "--set", "budget.latency=0.8"), "--macs and --latency are given"),
        (("--set", "train.imgz=64"), "unknown option 'imgz'"),
        (("--data", "nowhere.yaml"), "no data yaml 'nowhere.yaml'"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_made(
    tmp_path: Path, data: Path, options: tuple[str, ...], message: str
) -> None:
    chosen = () if "--data" in options else ("--data", data)
    arguments = ("prune", checkpoint(tmp_path), *chosen, *options, "--out", tmp_path / "run")
    assert message in detprune(*arguments, code=2, preloaded="yolo").stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_prune_runs_to_the_end(tmp_path: Path, data: Path) -> None:
    arguments = ("prune", checkpoint(tmp_path), "--data", data, "--epochs", "3", "--macs", "0.6")
    run = tmp_path / "run"
    detprune(*arguments, "--set", "measure=false", "--out", run, preloaded="yolo")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["final"].keys() == summary["metrics"]["dense"].keys()
    network = torch.load(run / "pruned.pt", weights_only=False)["model"]
    whole = sum(p.numel() for p in tiny_model().parameters())
    assert sum(p.numel() for p in network.parameters()) < whole
    assert (run / "recipe.yaml").is_file()


@pytest.mark.parametrize(("key", "value"), [("classes", [0, 2]), ("single_cls", True)])
def test_labels_that_a_training_changed_in_memory(
    tmp_path: Path, data: Path, key: str, value: object
) -> None:
    path = checkpoint(tmp_path, data=str(data), **{key: value})
    for given in (None, data):
        with pytest.raises(InputError, match=rf"was trained with {key}=.*give that with --data"):
            first_recipe(FirstRun(path, {"macs": 0.5}, given))
    other = tmp_path / "own.yaml"
    other.write_text(data.read_text())
    assert recipe(FirstRun(path, {"macs": 0.5}, other)).data.yaml == other
