"""The detection recipe: what it refuses, and what it passes to Ultralytics unchanged."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import detprune as dp
from detprune.run.recipe import dump_yaml, override, validate

# isort: split
from detprune_yolo import DetectionRecipe, constrained


def recipe_with(tiny: dict[str, Any], *assignments: str) -> DetectionRecipe:
    return validate(DetectionRecipe, override(tiny, list(assignments)))


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("train.mosiac=0", r"unknown option 'mosiac' of Ultralytics \(did you mean 'mosaic'\?\)"),
        ("train.lr0=fast", "Ultralytics refuses an option"),
        (
            "train={epochs: 3, mode: train, mosiac: 0}",
            r"epochs is not for train.*\n *mode is not for train.*\n *unknown option 'mosiac'",
        ),
        ("train.epochs=3", "epochs is not for train; write it as epochs of the stage"),
        ("stages.retrain.train.project=x", "is not for train; use detprune run --out"),
        ("train.time=1", "outer iterations are counted in epochs"),
        ("train.single_cls=true", "is not for train; change the labels of the data set"),
        ("train.imgsz=[64, 64]", "training takes one number of pixels"),
        ("train.fraction=[0.5, 0.5]", "fraction is a list"),
        ("train.device=mps", "has no float64"),
        ("model={cfg: yolov3-tiny.yaml, weights: a.pt}", "either cfg.* or weights"),
        (
            "model={weights: a.pt, width: 0.5}",
            "model.width is 0.5, but the widths of a checkpoint are fixed",
        ),
        ("model={}", "either cfg.* or weights"),
        ("data={}", "data needs either yaml"),
        ("data.drawn.size=7", "size"),
        ("data.drawn.seed=true", "seed: true is no number"),
        ("data.drawn.test=0", "data.split is test, and data.drawn has no test images"),
        ("stages.dense=null", "there is no dense baseline"),
        ("stages.constrained.train.optimizer=auto", "write SGD and lr0"),
        ("stages.constrained.train.optimizer=Adam", ""),
        ("method={name: slr, ramp: 0.5}", ""),
        ("train.optimizer=Foo", "optimizer 'Foo'"),
        ("train.optimizer=sgd", ""),
        ("train.copy_paste_mode=zzz", "copy_paste_mode 'zzz'"),
        ("train.cache=tape", "cache 'tape'"),
        ("train.cache=disk", ""),
        ("train.cache=true", ""),
        ("train.auto_augment=nonsense", "auto_augment 'nonsense'"),
        ("train.auto_augment=augmix", "is for classification, and does nothing while a detector"),
        ("train.auto_augment=randaugment", ""),
        ("train.augment=true", "augment is True, but it is for prediction"),
        ("train.dropout=0.5", "dropout is 0.5, but it is for classification.*leave it out"),
        ("train.overlap_mask=false", "overlap_mask is False, but it is for segmentation"),
        ("train.tracker=mine.yaml", "tracker is 'mine.yaml', but it is for prediction"),
        ("train.simplify=false", "simplify is False, but it is for export"),
        ("train.show_labels=true", ""),
        ("train.box=-1", "box is -1; allowed is a number from 0"),
        ("train.freeze=-1", "freeze is -1; allowed are"),
        ("train.freeze=true", "freeze is true, which is no number|freeze is True; allowed are"),
        ("train.freeze=1.5", "freeze is 1.5; allowed are"),
        ("train.freeze=[0, -2]", "freeze is .0, -2.; allowed are"),
        ("train.freeze=ten", "freeze is 'ten'; allowed are"),
        ("train.freeze=[0, model.2]", ""),
        ("train.save_period=x", "Ultralytics refuses an option"),
        ("train.rect=3", "Ultralytics refuses an option"),
        ("train.val=maybe", "Ultralytics refuses an option"),
        ("train.multi_scale=7", "Ultralytics refuses an option"),
        ("train.compile=fast", "compile .fast."),
        ("train.mosaic=-1", "Ultralytics refuses an option"),
        ("train.patience=-1", "patience is -1; allowed"),
        ("train.close_mosaic=-1", "close_mosaic is -1; allowed"),
        ("model.width=1e9", "less than or equal to 16"),
        ("train.imgsz=0", "imgsz is 0; allowed is a number from 32"),
        ("train.imgsz=1000000", "imgsz is 1000000; allowed"),
        ("train.batch=0", "batch is 0; give a whole number"),
        ("train.batch=4.5", r"batch is 4\.5; give a whole number"),
        ("stages.retrain.train.batch=8.0", r"batch is 8\.0; give a whole number"),
        ("train.batch=0.7", ""),
        ("train.batch=-7", "batch is -7; allowed"),
        ("train.workers=-1", "workers is -1; allowed"),
        ("train.nbs=0", "nbs is 0; allowed"),
        ("train.lr0=0", "lr0 is 0; allowed"),
        ("train.lr0=.nan", "--set 'train.lr0=.nan', line 1, column 1 .*no finite number"),
        ("train.warmup_epochs=.inf", "warmup_epochs=.inf', line 1, column 1 .*no finite number"),
        ("train.momentum=2", "momentum is 2; allowed"),
        ("train.momentum=1", "momentum is 1; allowed is a number from 0 to 0.9999"),
        ("train.batch=-0.5", "batch is -0.5; give a whole number of images"),
        ("train.fraction=0", "fraction is 0; allowed"),
        ("train.device=gpu", "device is 'gpu'; allowed are cpu"),
        ("train.device='cuda:x'", "device is 'cuda:x'; allowed are cpu"),
        ("train.device=[0, 0]", "device is .*allowed are cpu"),
        ("train.device='0,1'", ""),
        ("train.batch=-1", ""),
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
    with pytest.raises(dp.InputError, match=r"rho is chosen by pull, which through the gradient"):
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


@pytest.mark.parametrize("chosen", ["{name: n_m}", "pattern"])
def test_a_ramp_that_no_sparsity_can_follow_is_refused_at_once(
    tiny_detector: dict[str, Any], chosen: str
) -> None:
    for method in (
        "{name: slr, ramp: 0.5}",
        "{name: sas_admm, ramp: 0.5}",
        "dpf",
        "gradual_magnitude",
    ):
        with pytest.raises(dp.InputError, match="lets the sparsity grow, but"):
            recipe_with(tiny_detector, f"method={method}", f"set={chosen}")
    method = dp.ADMM(ramp=0.5)
    with pytest.raises(dp.InputError, match="lets the sparsity grow, but"):
        constrained(method, dp.Budget(), dp.NM(2, 4))


def test_rho_by_pull_through_the_gradient_is_for_sgd_alone(tiny_detector: dict[str, Any]) -> None:
    with pytest.raises(dp.InputError, match="rho is chosen by pull"):
        recipe_with(
            tiny_detector,
            "method={name: slr, penalty: gradient}",
            "stages.constrained.train.optimizer=Adam",
        )


def test_a_recipe_survives_its_own_dump(tiny_detector: dict[str, Any]) -> None:
    recipe = recipe_with(tiny_detector)
    assert validate(DetectionRecipe, yaml.safe_load(dump_yaml(recipe))) == recipe


def test_the_options_that_name_the_dense_detector_of_a_run(tiny_detector: dict[str, Any]) -> None:
    recipe = validate(DetectionRecipe, tiny_detector)
    with pytest.raises(
        dp.InputError, match=r"to be scanned; those of a run .* are named with "
    ) as caught:
        recipe.require_weights("to be scanned")
    options = shlex.split(str(caught.value).split(" are named with ")[1])
    changed = recipe_with(tiny_detector, *options[1::2])
    assert changed.model.weights == Path("runs/x/checkpoints/dense/weights/best.pt")
    assert changed.has_weights


def test_rmsprop_cannot_begin_without_momentum() -> None:
    from detprune_yolo.options import check_options

    with pytest.raises(dp.InputError, match="warmup_momentum above 0"):
        check_options({"optimizer": "RMSProp", "warmup_momentum": 0.0})
    check_options({"optimizer": "RMSProp", "warmup_momentum": 0.8})
