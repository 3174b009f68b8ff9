"""What a detector's constrained training would refuse is refused before its dense stage."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainings import images

import detprune as dp
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import override, validate

# isort: split
from detprune_yolo import DetectionRecipe, constrained, retraining
from detprune_yolo.task import DetectionTask
from detprune_yolo.training.sizes import check_sizes


class Dense(Exception):  # noqa: N818
    """The dense stage began."""


class Untrained(DetectionTask):
    """A task whose dense stage fails."""

    def train_dense(self, model: Any) -> None:
        raise Dense


def begun(tiny_detector: dict[str, Any], folder: Path, *assignments: str, **parts: object) -> None:
    data = f"data={{yaml: '{images()}', split: val}}"
    recipe = validate(DetectionRecipe, override(tiny_detector, [data, *assignments]))
    recipe = recipe.model_copy(update=parts)
    run = RunDirectory.open(folder / "run", recipe, resume=False)
    run_stages(Untrained(recipe, run), recipe, run, "test")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            [
                "train.freeze=3",
                "budget={compression: 4, include: [model.0.*, model.2.*, model.13.*]}",
            ],
            r"names model\.0\.conv\.weight, model\.2\.conv\.weight, which freeze \(3\) holds fixed",
        ),
        (
            [
                "stages.constrained.train.freeze=[13]",
                "budget={compression: 4, include: ['model.1*']}",
            ],
            r"names model\.13\.conv\.weight, which freeze",
        ),
        (  # without a GPU Ultralytics takes batches of 16
            ["stages.constrained.every=0.1", "train.batch=-1"],
            r"every is 0\.1 epochs, in which there is no optimizer step",
        ),
        (
            ["stages.constrained.every=0.1", "train.nbs=640"],
            r"every is 0\.1 epochs, in which there is no optimizer step; an epoch has",
        ),
        (["set={name: n_m, n: 2, m: 5}", "budget={}"], "no multiple of 5"),
        (
            ["train.multi_scale=0.5"],
            r"imgsz is 64 and multi_scale 0\.5, so that images of 32 pixels .*have 5 places; .*smaller m",
        ),
        (
            ["stages.retrain.train.imgsz=32"],
            "imgsz is 32, so that images of 32 .*give a larger imgsz",
        ),
        (["set=pattern", "budget={include: [model.14.*]}"], "cannot be pruned with Pattern"),
    ],
)
def test_found_before_the_dense_stage(
    tiny_detector: dict[str, Any], tmp_path: Path, assignments: list[str], message: str
) -> None:
    with pytest.raises(dp.InputError, match=message):
        begun(tiny_detector, tmp_path, *assignments)


def test_a_pull_through_the_gradient_of_another_optimizer(
    tiny_detector: dict[str, Any], tmp_path: Path
) -> None:
    method = dp.ADMM(rho="auto", penalty="gradient")
    with pytest.raises(dp.InputError, match="worked out for SGD"):
        begun(tiny_detector, tmp_path, "train.optimizer=AdamW", method=method)
    with pytest.raises(Dense):
        begun(tiny_detector, tmp_path / "SGD", "train.optimizer=sgd", method=method)


@pytest.mark.parametrize(
    "assignments",
    [
        ["train.multi_scale=0.3", "train.imgsz=96"],
        ["train.freeze=3"],
        ["train.freeze=3", "budget={compression: 4, include: [model.13.*]}"],
        ["method=sas_admm", "stages.constrained.every=0.1", "train.nbs=640"],
        ["method=dpf", "train.optimizer=MuSGD"],
    ],
)
def test_what_goes_together_is_let_through(
    tiny_detector: dict[str, Any], tmp_path: Path, assignments: list[str]
) -> None:
    with pytest.raises(Dense):
        begun(tiny_detector, tmp_path, *assignments)


def test_the_last_batch_of_small_images() -> None:
    model = nn.Module()
    model.stride = torch.tensor([8.0, 16.0, 32.0])
    options = {"imgsz": 32, "batch": 8}
    check_sizes(model, options, images=24)
    check_sizes(model, {**options, "imgsz": 64}, images=25)
    with pytest.raises(
        dp.InputError, match=r"last batch has one image \(25 images in batches of 8"
    ):
        check_sizes(model, options, images=25)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: constrained(dp.ADMM, dp.Budget(sparsity=0.5)), "method is the class ADMM"),  # type: ignore[arg-type]
        (lambda: constrained(dp.ADMM(), 0.5), r"budget is 0\.5, a float"),  # type: ignore[arg-type]
        (lambda: constrained(dp.ADMM(), dp.Budget(), "filter"), "sparsity_set is 'filter'"),  # type: ignore[arg-type]
        (lambda: constrained(dp.ADMM(), dp.Budget(), teacher=1), "the path is of type int"),  # type: ignore[arg-type]
        (lambda: retraining(42), "type int.*; give the checkpoint of the dense detector"),  # type: ignore[arg-type]
        (lambda: retraining("nothing.pt"), "there is no file"),
    ],
)
def test_arguments_of_the_trainers_of_another_type(make: Any, text: str) -> None:
    with pytest.raises(dp.InputError, match=text):
        make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*annotations.json: No such file"),
        ('"a password"\n"another"', "annotations.json is not JSON: Extra data: line 2"),
        ('"a password"', "annotations.json: the annotations are no object but a str"),
        ("{}", "annotations.json: the annotations have no 'images' but nothing"),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "the classes .* are not in the annotations",
        ),
    ],
)
def test_annotations_that_cannot_be_used_are_found_before_the_dense_stage(
    tiny_detector: dict[str, Any], tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "annotations.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(dp.InputError, match=message) as refused:
        begun(
            tiny_detector, tmp_path, f"data={{yaml: '{images()}', split: val, annotations: {file}}}"
        )
    assert "password" not in str(refused.value)
