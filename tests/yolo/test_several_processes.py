"""What Ultralytics hands to the processes it starts on several GPUs; those themselves need GPUs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import task_networks
from task_networks import ENDINGS, drawn
from trainings import constrained_settings, trainer_of

import detprune as dp

# isort: split
from detprune_yolo import ConstrainedTrainer
from detprune_yolo.training.resumable import _CALLBACKS
from detprune_yolo.training.settings import own_modules

# isort: split
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.utils.patches import torch_load

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", ENDINGS)
def test_a_worker_makes_the_same_trainer_with_callbacks_attached_once(
    task: str, tmp_path: Path
) -> None:
    settings = constrained_settings(dp.SLR(rho="auto"), run_dir=tmp_path)
    start = task_networks.start_file(tmp_path / "start.pt", f"yolov8n{ENDINGS[task]}")
    data = str(drawn(task))
    trainer = trainer_of(ConstrainedTrainer, settings, start, tmp_path, epochs=3, data=data)
    script = Path(generate_ddp_file(trainer))
    try:
        state = torch_load(script.with_suffix(".pt"), map_location="cpu")
    finally:
        script.unlink()
        script.with_suffix(".pt").unlink()
    worker = state["trainer"](overrides=state["args"], _callbacks=state["callbacks"])
    assert isinstance(worker, ConstrainedTrainer)
    assert worker.kind == trainer.kind
    assert isinstance(worker, trainer.kind.trainer)
    assert worker.settings == settings
    assert worker.args.lr0 == trainer.args.lr0
    for event, attached in worker.callbacks.items():
        ours = [f for f in attached if getattr(f, "__module__", "").startswith("detprune_yolo")]
        assert len(ours) == (event in _CALLBACKS), event


def test_processes_take_no_modules_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics starts them with ``python -m``, which looks there first."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    (tmp_path / "torch.py").write_text("open('code_ran', 'w').close()")
    before = dict(os.environ)
    with own_modules():
        subprocess.run([sys.executable, "-m", "torch.torch_version"], cwd=tmp_path, check=True)
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == ["torch.py"]


def test_the_fresh_folder_of_several_processes_does_not_hold_what_they_start_from(
    tmp_path: Path, tiny_detector: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ultralytics deletes the stage's folder before it starts them
    from detprune.run.directory import RunDirectory
    from detprune.run.recipe import validate
    from detprune_yolo import DetectionRecipe, DetectionTask

    recipe = validate(DetectionRecipe, tiny_detector)
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    task = DetectionTask(recipe, run)
    start = task._start("constrained", task.build_model(), None)
    assert start.is_file()
    assert (run.checkpoints / "constrained") not in start.parents
