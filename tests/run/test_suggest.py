"""detprune suggest: a recipe with a plan that runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import Call, detprune
from detprune.errors import NonFiniteError
from detprune.run.directory import RunDirectory
from detprune.run.export.onnx_export import export_onnx
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask


@pytest.mark.slow
def test_a_suggested_recipe_runs(tiny_file: Path, tmp_path: Path, call: Call) -> None:
    run, out = tmp_path / "run", tmp_path / "plan.yaml"
    assert "the recipe names no weights" in call("suggest", tiny_file, "--out", out, code=2).stderr
    detprune("run", tiny_file, "--out", run, "--set", "stages.constrained.epochs=0")
    weights = f"model.weights={run / 'checkpoints' / 'dense.pt'}"
    arguments = ("suggest", tiny_file, "--set", weights, "--set", "stages.dense=null", "--out", out)
    assert "this plan" in detprune(*arguments, "--images", 64).stdout
    budget = yaml.safe_load(out.read_text())["budget"]
    assert budget["compression"] is None
    plan = budget["allocation"]
    assert len(plan) == 20
    assert len(set(plan.values())) > 1
    assert max(plan.values()) <= 0.975  # no layer keeps less than a quarter of a tenth
    assert "exists already" in call(*arguments, code=2).stderr
    detprune("run", out, "--out", tmp_path / "pruned", "--set", "stages.constrained.epochs=1")
    summary = yaml.safe_load((tmp_path / "pruned" / "summary.json").read_text())
    assert 9.9 < summary["compression"] < 10.1
    for layer in summary["layers"]:
        if layer["pruned"]:
            kept = max(1, round((1 - plan[layer["name"]]) * layer["numel"]))
            assert layer["nonzero"] == kept


def test_the_loss_is_that_of_the_images(tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe = validate(ClassificationRecipe, {**tiny, "data": {**tiny["data"], "augment": False}})
    task = ClassificationTask(recipe, RunDirectory(tmp_path))
    model = task.build_model()
    state = torch.get_rng_state()
    probe = task.loss_probe(model, 80)
    value = probe()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    samples = [task.data.train[index] for index in range(0, 160, 2)]
    model.eval()
    logits = model(torch.stack([image for image, _ in samples]))
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([y for _, y in samples]))
    assert abs(value - float(expected.detach())) < 1e-5
    with torch.no_grad():
        next(model.parameters()).mul_(3)
    assert probe() != value


def test_a_network_with_nan_is_named_and_not_measured(
    tiny: dict[str, Any], tiny_file: Path, tmp_path: Path, call: Call
) -> None:
    """Its accuracy was that of chance, and its plan was made of NaN."""
    task = ClassificationTask(validate(ClassificationRecipe, tiny), RunDirectory(tmp_path))
    model = task.build_model()
    with torch.no_grad():
        model.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] = float("nan")
    file, out = tmp_path / "nan.pt", tmp_path / "plan.yaml"
    torch.save(model.state_dict(), file)
    evaluate = ("evaluate", "classification", tiny_file)
    said = call(*evaluate, "--checkpoint", file, code=1).stderr
    assert f"the network in {file} holds NaN or infinite values in layer1.0.conv1.weight" in said
    start = ("--set", f"model.weights={file}", "--set", "stages.dense=null")
    channels = (*start, "--set", "set=coupled_channels", "--set", "budget={macs: 0.5}")
    for command in (
        (*evaluate, *start),
        ("suggest", tiny_file, "--out", out, *start),
        ("suggest", tiny_file, "--out", out, *channels),
    ):
        said = call(*command, code=2).stderr
        assert "in layer1.0.conv1.weight" in said
        assert "give another checkpoint as model.weights" in said
    assert not out.exists()


def test_a_network_with_nan_is_not_exported(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    with torch.no_grad():
        network.get_parameter("1.weight")[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"to be exported holds NaN .* in 1\.weight"):
        export_onnx(network, (1, 2, 2), tmp_path / "x.onnx", extra="classification")
    assert not list(tmp_path.iterdir())
