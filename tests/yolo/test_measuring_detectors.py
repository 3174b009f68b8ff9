"""Detectors are measured as inference runs them: fused, without what only training uses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_detector import prune, tiny_detector, write_pruned

from command_line import detprune_here
from detprune import InputError
from detprune.run.measuring import deployed, measure_networks
from detprune_yolo.task import DetectionTask
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.nn.tasks import DetectionModel

pytestmark = pytest.mark.slow


def test_a_detector_is_fused_in_a_copy() -> None:
    model = tiny_detector().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = deployed(model)
    assert own.counted is model
    assert own.stride == 32
    assert own.timed.is_fused()
    assert not model.is_fused()
    assert model.training
    assert not model.model[-1].export
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = own.timed(image)
        expected = model.eval()(image)[0]
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cfg", ["yolov10n.yaml", "yolo26n.yaml"])
def test_heads_of_two_branches_are_exported(cfg: str) -> None:
    model = DetectionModel(cfg, nc=2, verbose=False)
    found = measure_networks(None, model, (torch.rand(1, 3, 64, 64),), rounds=3, seconds=0)
    assert found.notes == ()
    assert found.pruned.parameters == sum(p.numel() for p in model.parameters())
    assert found.pruned.onnx_bytes is not None
    assert found.pruned.onnx_bytes < 4 * found.pruned.parameters  # one branch is left out
    assert found.latencies[1].pruned_ms is not None


def measured(*arguments: object, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    command = ("measure", *arguments, "--repeats", 3)
    assert detprune_here(*command, monkeypatch=monkeypatch) == code


def test_files_without_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    masks = write_pruned(tmp_path / "pruned.pt")
    save_checkpoint(tmp_path / "dense.pt", pruned_checkpoint(tiny_detector(), None))
    files = (tmp_path / "pruned.pt", "--against", tmp_path / "dense.pt")
    measured(*files, "--json", monkeypatch=monkeypatch)
    found = json.loads(capsys.readouterr().out)
    assert found["shapes"] == [[1, 3, 64, 64]]  # as it was trained
    assert found["pruned"]["macs"] == found["dense"]["macs"]
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert found["pruned"]["parameters"] - found["pruned"]["nonzero"] >= zeros
    assert found["pruned"]["pt_bytes"] == (tmp_path / "pruned.pt").stat().st_size
    measured(tmp_path / "pruned.pt", "--size", 96, "--batch", 2, monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert "2 × 3 × 96 × 96" in shown
    assert "ms in ONNX Runtime" in shown
    measured(tmp_path / "pruned.pt", "--size", 100, monkeypatch=monkeypatch, code=2)
    assert "multiple of the network's stride 32, such as 96" in capsys.readouterr().err


def test_files_that_hold_no_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = tiny_detector()
    prune(model)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    measured(tmp_path / "state.pt", monkeypatch=monkeypatch, code=2)
    said = capsys.readouterr().err
    assert "tensors without their network" in said
    assert "recipe.yaml of its run beside it" in said
    with pytest.raises(InputError, match="there is no file"):
        DetectionTask.open_file(tmp_path / "nowhere.pt")
