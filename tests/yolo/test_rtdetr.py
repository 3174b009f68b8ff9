"""RT-DETR, whose decoder has queries in place of anchors: from a recipe to plain Ultralytics and ONNX."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from task_networks import SIZE, drawn

from command_line import detprune_here
from detprune.run.export.onnx_files import exporter_warnings_off

# isort: split
from detprune_yolo.channels import lacks_channels
from detprune_yolo.export.onnx import export_onnx
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics import RTDETR

LAYERS = {
    "nc": 3,
    "scales": {"l": [1.0, 1.0, 1024]},
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (16, 16, 32, 32, 32)],
    "head": [
        [-1, 1, "AIFI", [64, 4]],
        [[2, 3, 5], 1, "RTDETRDecoder", ["nc", 32, 20, 4, 4, 1, 64]],
    ],
}
RECIPE: dict[str, Any] = {
    "task": "yolo",
    "measure": False,
    "name": "rtdetr",
    "data": {"drawn": {"train": 8, "val": 4, "size": SIZE, "classes": 3, "objects": 3}},
    "method": {"name": "admm", "rho": 0.1},
    "train": {"imgsz": 64, "batch": 4, "nbs": 4, "device": "cpu", "workers": 0, "verbose": False},
    "stages": {
        "dense": {"epochs": 1, "train": {"lr0": 0.001}},
        "constrained": {"epochs": 1, "every": 1, "train": {"optimizer": "SGD", "lr0": 0.001}},
        "retrain": {"epochs": 1, "train": {"lr0": 0.001}},
    },
}
CHANNELS = {"set": {"name": "coupled_channels", "round_to": 2}, "budget": {"macs": 0.7}}
WEIGHTS = {"budget": {"compression": 2}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exporting aten.*index operator:UserWarning")
@pytest.mark.parametrize("what", [CHANNELS, WEIGHTS], ids=["channels", "weights"])
def test_from_a_recipe_to_plain_ultralytics(
    what: dict[str, Any],
    tmp_path: Path,
    recipe_file: Callable[[Path, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    description = tmp_path / "tiny-rtdetr.yaml"
    description.write_text(yaml.safe_dump(LAYERS), encoding="utf-8")
    file = recipe_file(tmp_path, {**RECIPE, **what, "model": {"cfg": str(description)}})
    assert detprune_here("run", file, "--out", tmp_path / "run", monkeypatch=monkeypatch) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metric"] == "mAP@0.5"
    pruned = tmp_path / "run" / "pruned.pt"
    network = load_model(pruned)
    assert lacks_channels(network) == (what is CHANNELS)
    if what is WEIGHTS:
        pruned_weights = {name for name, p in network.named_parameters() if (p == 0).any()}
        assert any("decoder.layers.0.linear1" in name for name in pruned_weights)
        heads = {
            n for n, _ in network.named_parameters() if "_score_head" in n or "_bbox_head" in n
        }
        assert heads
        assert not pruned_weights & {n for n in heads if n.endswith("weight")}

    check = export_onnx(pruned, tmp_path / "pruned.onnx", imgsz=SIZE)
    assert check.max_box_difference < 1e-2

    plain = RTDETR(str(pruned))
    common = {"imgsz": SIZE, "device": "cpu", "verbose": False, "project": str(tmp_path)}
    place = drawn("detect")
    assert "metrics/mAP50(B)" in plain.val(data=str(place), plots=False, **common).results_dict
    image = next(place.parent.rglob("*.png"))
    assert len(plain.predict(str(image), **common)) == 1
    with exporter_warnings_off():
        assert Path(plain.export(format="onnx", imgsz=SIZE)).is_file()
