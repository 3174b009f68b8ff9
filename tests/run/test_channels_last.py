"""Training with the weights of convolutions in the channels-last memory format."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask
from detprune_lightning.distillation import Distillation, Teacher


def is_channels_last(network: nn.Module) -> bool:
    # 1×1 kernels are in both formats
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    return all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


class Watched(ClassificationTask):
    """Notes the memory format during checks, which come at the end of an epoch; may break off there."""

    breaks = False

    def _measure_hard_pruned(self, network: nn.Module) -> float:
        self.formats = [*getattr(self, "formats", []), is_channels_last(network)]
        return super()._measure_hard_pruned(network)

    def _log_check(self, value: float, epoch: int) -> None:
        super()._log_check(value, epoch)
        if self.breaks:
            raise OSError("killed")


def run(recipe: dict[str, Any], folder: Path, breaks: bool = False) -> Watched:
    directory = RunDirectory(folder)
    task = Watched(validate(ClassificationRecipe, recipe), directory)
    task.breaks = breaks
    run_stages(task, task.recipe, directory, "test")
    return task


@pytest.mark.slow
@pytest.mark.parametrize("method", ["slr", "sas_admm", "gradual_magnitude"])
def test_a_run_trains_in_it_and_leaves_the_usual_files(
    tiny: dict[str, Any], tmp_path: Path, method: str
) -> None:
    tiny["method"] = {"name": "slr", "rho": "auto"} if method == "slr" else method
    tiny["distillation"] = {"weight": 0.5}
    tiny["stages"]["dense"]["epochs"] = 1
    plain = run(tiny, tmp_path / "plain")
    tiny["trainer"]["channels_last"] = True
    whole = run(tiny, tmp_path / "whole")
    assert (set(plain.formats), set(whole.formats)) == ({False}, {True})

    with pytest.raises(OSError, match="killed"):
        run(tiny, tmp_path / "cut", breaks=True)
    run(tiny, tmp_path / "cut")
    saved = {
        name: torch.load(tmp_path / name / "pruned.pt", weights_only=True)
        for name in ("plain", "whole", "cut")
    }
    for name, value in saved["whole"].items():
        assert value.is_contiguous(), name
        assert torch.equal(value, saved["cut"][name]), name
        assert value.shape == saved["plain"][name].shape


@pytest.mark.slow
def test_channels_are_those_of_the_plan_and_taken_up_again(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    tiny |= {"set": "coupled_channels", "budget": {"parameters": 0.3}, "method": "admm"}
    for stage in tiny["stages"].values():
        stage["epochs"] = 1
    saved = {}
    for channels_last in (False, True):
        tiny["trainer"]["channels_last"] = channels_last
        folder = tmp_path / str(channels_last)
        run(tiny, folder)
        saved[channels_last] = torch.load(folder / "checkpoints" / "pruner.pt", weights_only=True)
    assert saved[True]["layers"] == saved[False]["layers"]

    progress = tmp_path / "True" / "progress.json"
    done = json.loads(progress.read_text())
    del done["final"]
    progress.write_text(json.dumps(done))
    pruned = torch.load(tmp_path / "True" / "pruned.pt", weights_only=True)
    run(tiny, tmp_path / "True")
    again = torch.load(tmp_path / "True" / "pruned.pt", weights_only=True)
    assert all(
        torch.equal(value, again["state_dict"][name])
        for name, value in pruned["state_dict"].items()
    )


def test_the_teacher_says_the_same_in_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 5))
    images, logits = torch.randn(2, 3, 4, 4), torch.randn(2, 5)

    def mixed(channels_last: bool) -> Tensor:
        teacher = Teacher(network, Distillation(), channels_last=channels_last)
        return teacher.mix(torch.tensor(1.0), logits, images)

    torch.testing.assert_close(mixed(True), mixed(False))
    assert not is_channels_last(network)  # its copy is
