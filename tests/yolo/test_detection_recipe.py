"""The detection recipe: what it refuses, and what it passes to Ultralytics unchanged."""

from typing import Any

import pytest
import yaml

import detprune as dp
from detprune.recipe import dump_yaml, override, validate

# isort: split
from detprune_yolo import DetectionRecipe


def recipe_with(tiny: dict[str, Any], *assignments: str) -> DetectionRecipe:
    return validate(DetectionRecipe, override(tiny, list(assignments)))


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("train.mosiac=0", r"unknown option 'mosiac' of Ultralytics \(did you mean 'mosaic'\?\)"),
        ("train.lr0=fast", "Ultralytics refuses an option"),
        ("train.epochs=3", "epochs is not for train; what stands for it is epochs of the stage"),
        ("stages.retrain.train.project=x", "what stands for it is detprune run --out"),
        ("train.time=1", "outer iterations are counted in epochs"),
        ("train.single_cls=true", "what stands for it is the labels of the data set"),
        ("train.imgsz=[64, 64]", "training takes one number of pixels"),
        ("train.fraction=[0.5, 0.5]", "fraction is a list"),
        ("train.device=mps", "has no float64"),
        ("model={cfg: yolov3-tiny.yaml, weights: a.pt}", "either cfg.* or weights"),
        ("model={weights: a.pt, width: 0.5}", "model.width changes an architecture"),
        ("model={}", "either cfg.* or weights"),
        ("data={}", "data needs either yaml"),
        ("data.drawn.size=7", "size"),
        ("data.drawn.test=0", "data.split is test, and data.drawn has no test images"),
        ("stages.dense=null", "there is no dense baseline"),
        ("stages.constrained.train.optimizer=auto", "write SGD and lr0"),
        ("stages.constrained.train.optimizer=Adam", ""),
        ("stages.constrained.stop_at=0.5", ""),
        ("stages.constrained={epochs: 1, stop_at: 0.5}", "stop_at needs check_every"),
        ("stages.constrained.prune=best", "'ema' or 'live'"),
        ("modle.cfg=x", r"unknown key modle \(did you mean 'model'\?\)"),
    ],
)
def test_errors_name_the_key_and_the_way_out(
    tiny_detector: dict[str, Any], assignment: str, text: str
) -> None:
    if not text:
        recipe_with(tiny_detector, assignment)
        return
    with pytest.raises(dp.InputError, match=text):
        recipe_with(tiny_detector, assignment)


def test_a_pull_through_the_gradient_asks_for_sgd(tiny_detector: dict[str, Any]) -> None:
    adam, method = (
        "stages.constrained.train.optimizer=Adam",
        "method={name: slr, penalty: gradient}",
    )
    with pytest.raises(
        dp.InputError, match=r"rho is chosen by pull and method\.penalty is gradient"
    ):
        recipe_with(tiny_detector, adam, method)


def test_options_reach_ultralytics_and_constrained_training_fixes_two(
    tiny_detector: dict[str, Any],
) -> None:
    recipe = recipe_with(
        tiny_detector,
        "train.amp=false",
        "train.patience=5",
        "train.optimizer=auto",
        "stages.constrained.train.lr0=0.5",
    )
    retrain = recipe.options("retrain")
    assert retrain["amp"] is False
    assert retrain["patience"] == 5
    assert retrain["optimizer"] == "auto"
    constrained = recipe.options("constrained")
    assert constrained["patience"] == 0
    assert constrained["optimizer"] == "SGD"
    assert constrained["lr0"] == 0.5
    assert constrained["amp"] is False


def test_a_recipe_survives_its_own_dump(tiny_detector: dict[str, Any]) -> None:
    recipe = recipe_with(tiny_detector)
    assert validate(DetectionRecipe, yaml.safe_load(dump_yaml(recipe))) == recipe
