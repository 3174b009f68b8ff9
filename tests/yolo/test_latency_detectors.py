"""Latency budgets of detectors, by a table whose times are known: no clock is read."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detectors import SIZE, noise, small_detector

import detprune as dp
from detprune.channels.latency_table import NetworkTime
from detprune.latency_targets import LatencyTarget
from detprune.run.latency.choosing import with_table, write_table
from detprune.run.latency.profiling import Subject, empty_table
from detprune.run.measuring.deployment import deployed
from detprune_yolo.channels import detector_set
from detprune_yolo.training.constrained import constrained
from detprune_yolo.training.settings import StageSettings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["yolov3-tiny", "yolov8n", "yolo26n"])
def test_a_detector_is_pruned_to_a_table_and_runs(family: str, tmp_path: Path) -> None:
    model, target = small_detector(family), LatencyTarget()
    chosen: Any = detector_set(dp.CoupledChannels(round_to=4), model, SIZE)
    budget = dp.Budget(latency=0.6)
    own = deployed(model)
    subject = Subject.on(target, model, chosen, budget, own.finish)
    empty = empty_table(subject, target)
    layers = [
        dataclasses.replace(t, ms=np.outer(t.inputs, t.outputs).astype(float)) for t in empty.layers
    ]
    table = dataclasses.replace(
        empty, layers=tuple(layers), networks=(NetworkTime(1.0, 1.2 * _total(layers)),)
    )
    write_table(table, tmp_path / "table.yaml")
    stated = with_table(budget, tmp_path / "table.yaml")
    bound, predicted, least = chosen.latency_of(model, stated)
    assert 0.5 < predicted <= 0.6
    assert least < 0.6
    small = subject.without_channels(bound)
    with torch.no_grad():
        outputs, expected = small.timed(noise(1))[0], own.timed(noise(1))[0]
    assert outputs.shape == expected.shape
    assert sum(p.numel() for p in small.counted.parameters()) < sum(
        p.numel() for p in model.parameters()
    )


def _total(layers: Any) -> float:
    """Milliseconds of all layers at full width."""
    return float(sum(len(own.weights) * own.ms[-1, -1] for own in layers))


def test_the_settings_of_a_stage_carry_the_table() -> None:
    budget = dp.Budget(latency=0.5, target=LatencyTarget(table="table.yaml"))
    settings = StageSettings(stage="constrained", set=dp.CoupledChannels(), budget=budget)
    assert StageSettings.model_validate(settings.model_dump(mode="json")).budget == budget


def test_from_python_a_latency_needs_its_table_before_training(tmp_path: Path) -> None:
    for target, text in (
        (None, "times of the layers are not measured yet"),
        (LatencyTarget(table=str(tmp_path / "none.yaml")), "No such file"),
    ):
        budget = dp.Budget(latency=0.5, target=target)
        with pytest.raises(dp.InputError, match=text):
            constrained(dp.ADMM(rho=0.1), budget, dp.CoupledChannels())
