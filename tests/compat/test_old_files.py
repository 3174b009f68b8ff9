"""Files that version 0.1 wrote: recipes are valid, reports are drawn, networks load and measure what they did.

The two runs are those of the tests' tiny recipes with one epoch a stage.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from command_line import detprune_here

OLD = Path(__file__).parent / "version_0_1"


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_an_old_recipe_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detprune_here("validate", OLD / name / "recipe.yaml", monkeypatch=monkeypatch) == 0


def test_the_report_of_an_old_run_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(OLD / "digits", tmp_path / "run")
    assert detprune_here("report", tmp_path / "run", monkeypatch=monkeypatch) == 0
    assert "old_digits" in (tmp_path / "run" / "report.html").read_text()


def test_an_old_classifier_measures_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = (OLD / "digits" / "recipe.yaml", "--checkpoint", OLD / "digits" / "pruned.pt")
    assert detprune_here("evaluate", "classification", *files, monkeypatch=monkeypatch) == 0
    summary = json.loads((OLD / "digits" / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(summary["final"])


def test_an_old_detector_loads_with_its_masks() -> None:
    from detprune_yolo.weights.checkpoints import load_model, read_masks

    model, masks = (
        load_model(OLD / "shapes" / "pruned.pt"),
        read_masks(OLD / "shapes" / "pruned.pt"),
    )
    assert masks
    weights = dict(model.named_parameters())
    assert all(not torch.any(weights[name][~mask]) for name, mask in masks.items())
    summary = json.loads((OLD / "shapes" / "summary.json").read_text())
    pruned = [layer for layer in summary["layers"] if layer["pruned"]]
    assert {layer["name"]: int(weights[layer["name"]].count_nonzero()) for layer in pruned} == {
        layer["name"]: layer["nonzero"] for layer in pruned
    }
