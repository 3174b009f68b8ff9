"""Checkpoints that were saved after ``fuse()``: their batch norms are gone, so that no training can take them up."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from trainings import NAMES, OPTIONS, images, tiny_model

import detprune as dp
from detprune.run.adapter import FirstRun

# isort: split
from detprune_yolo import RetrainingTrainer, constrained
from detprune_yolo.first_recipe import first_recipe
from detprune_yolo.networks import build_network
from detprune_yolo.recipe import ModelSpec
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel


def repvgg_model() -> DetectionModel:
    return DetectionModel("yolov9t.yaml", nc=6, verbose=False)


@pytest.mark.parametrize("network", [tiny_model, repvgg_model])
def test_a_fused_network_is_refused_where_it_would_be_trained(
    tmp_path: Path, network: Callable[[], DetectionModel]
) -> None:
    file, model = tmp_path / "fused.pt", network()
    model.names = NAMES
    torch.save({"model": model.fuse(verbose=False)}, file)
    refused = r"was saved after fuse\(\): batch norm is merged .* give the checkpoint from before"
    for dense in (False, True):
        with pytest.raises(dp.InputError, match=refused):
            build_network(ModelSpec(weights=file), NAMES, any_classes=dense)
    with pytest.raises(dp.InputError, match=refused):
        first_recipe(FirstRun(file, {"macs": 0.5}, images()))
    for trainer in (constrained(dp.ADMM(rho=0.1), dp.Budget(compression=2)), RetrainingTrainer):
        with pytest.raises(dp.InputError, match=refused):
            YOLO(file).train(
                trainer=trainer, data=str(images()), epochs=1, project=str(tmp_path), **OPTIONS
            )
    load_model(file)  # to be measured
