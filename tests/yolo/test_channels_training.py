"""Whole channels inside Ultralytics' trainer: constrained training, retraining of the small detector, resume."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import noise, small_detector
from trainings import NAMES, OPTIONS, images, same, start_file, trainer_of

import detprune as dp

# isort: split
from detprune_yolo import RetrainingTrainer, constrained, retraining
from detprune_yolo.channels import lacks_channels
from detprune_yolo.descriptions import CHANNELS_REMOVED
from detprune_yolo.forward import run_detector
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, read_masks

# isort: split
from ultralytics import YOLO
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.utils.patches import torch_load

pytestmark = pytest.mark.slow

ADMM = dp.ADMM(rho="auto", free_support=True, ramp=0.75)


def options(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    more = {"epochs": 1, "workers": 0, **more}
    return {**OPTIONS, "data": str(images()), "project": str(folder), "name": name, **more}


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def train_constrained(folder: Path, family: str, macs: float = 0.5, **more: Any) -> Path:
    """Constrained training of a small detector; returns the folder of its weights."""
    model = small_detector(family)
    model.names = NAMES
    kind = constrained(ADMM, dp.Budget(macs=macs), dp.CoupledChannels(round_to=4))
    YOLO(str(start_file(folder, model=model))).train(
        trainer=kind, **options(folder, "constrained", **more)
    )
    return folder / "constrained" / "weights"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_constrained(tmp_path_factory.mktemp("channels"), "yolov8n")


def test_constrained_training_leaves_the_zeroed_and_the_shrunk_detector(weights: Path) -> None:
    zeroed, small = load_model(weights / "hard_pruned.pt"), load_model(weights / "shrunk.pt")
    masks = read_masks(weights / "hard_pruned.pt")
    assert masks
    assert any(mask.dim() == 1 for mask in masks.values())  # norms too
    assert read_masks(weights / "shrunk.pt") is None
    assert lacks_channels(small)
    assert not lacks_channels(zeroed)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (zeroed, small))
    assert after < 0.7 * before
    pairs = zip(run_detector(zeroed, noise()), run_detector(small, noise()), strict=True)
    for one, other in pairs:
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-4)


def test_the_shrunk_detector_is_retrained_and_resumed_to_the_last_bit(
    weights: Path, tmp_path: Path
) -> None:
    def cut(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    small = load_model(weights / "shrunk.pt")
    ended = []
    for name in ("whole", "cut"):
        model = YOLO(str(weights / "shrunk.pt"))
        if name == "cut":
            model.add_callback("on_train_batch_end", cut)
            with pytest.raises(KeyboardInterrupt):
                model.train(trainer=RetrainingTrainer, **options(tmp_path, name, epochs=2))
            model = YOLO(str(tmp_path / name / "weights" / "last.pt"))
            model.train(trainer=RetrainingTrainer, resume=True)
        else:
            model.train(trainer=RetrainingTrainer, **options(tmp_path, name, epochs=2))
        last = load_model(tmp_path / name / "weights" / "last.pt")
        assert shapes(last) == shapes(small)
        assert lacks_channels(last)
        ended.append(dict(last.state_dict()))
    assert same(ended[0], ended[1])
    moved = [n for n, p in small.named_parameters() if not torch.equal(p, ended[0][n])]
    assert len(moved) > 100


def test_the_zeroed_detector_is_not_retrained(weights: Path, tmp_path: Path) -> None:
    trainer = trainer_of(
        RetrainingTrainer, StageSettings(stage="retrain"), weights / "hard_pruned.pt", tmp_path
    )
    with pytest.raises(dp.InputError, match=r"whole channels.*shrunk\.pt"):
        trainer.train()


def test_two_heads_frozen_layers_and_a_teacher(tmp_path: Path) -> None:
    weights = train_constrained(tmp_path, "yolov10n", macs=0.6, freeze=2)
    small, dense = load_model(weights / "shrunk.pt"), load_model(weights / "hard_pruned.pt")
    before, after = (sum(p.numel() for p in m.parameters()) for m in (dense, small))
    assert after < 0.8 * before
    for name, parameter in small.named_parameters():
        if name.startswith(("model.0.", "model.1.")):
            assert parameter.shape == dense.get_parameter(name).shape
    kind = retraining(tmp_path / "start.pt")
    YOLO(str(weights / "shrunk.pt")).train(trainer=kind, **options(tmp_path, "taught"))
    assert shapes(load_model(tmp_path / "taught" / "weights" / "best.pt")) == shapes(small)


def test_other_processes_get_the_shrunk_detector(weights: Path, tmp_path: Path) -> None:
    # several processes need GPUs; this is what Ultralytics hands to them
    settings = StageSettings(stage="retrain")
    trainer = trainer_of(RetrainingTrainer, settings, weights / "shrunk.pt", tmp_path)
    script = Path(generate_ddp_file(trainer))
    try:
        state = torch_load(script.with_suffix(".pt"), map_location="cpu")
    finally:
        script.unlink()
        script.with_suffix(".pt").unlink()
    worker = state["trainer"](overrides=state["args"], _callbacks=state["callbacks"])
    worker.model = state["model"]
    worker.setup_model()
    assert shapes(worker.model) == shapes(load_model(weights / "shrunk.pt"))


def test_two_trainers_bind_the_same_channels(tmp_path: Path) -> None:
    # as two ranks do, each with its own copy of the network
    kept = []
    for rank in range(2):
        model = small_detector("yolov8n")
        torch.manual_seed(rank)
        chosen = dp.CoupledChannels(round_to=4)
        settings = StageSettings(
            method=ADMM, set=chosen, budget=dp.Budget(macs=0.5, allocation="global")
        )
        trainer = trainer_of(
            constrained(ADMM, settings.budget, chosen),  # type: ignore[arg-type]
            settings,
            start_file(tmp_path / str(rank), model=model),
            tmp_path / str(rank),
            epochs=1,
        )
        trainer.add_callback("on_train_start", stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert trainer.pruner is not None
        state = trainer.pruner.state_dict()
        kept.append((state["channels"], state["layers"]))
    assert kept[0] == kept[1]


def stop(trainer: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"nc": 2}, "has 6 classes, but the data set 2"),
        ({"channels": 1}, "has 3 channels in its images, but the data set 1"),
    ],
)
def test_a_shrunk_detector_keeps_its_head(
    weights: Path, tmp_path: Path, change: dict[str, int], text: str
) -> None:
    trainer = trainer_of(
        RetrainingTrainer, StageSettings(stage="retrain"), weights / "shrunk.pt", tmp_path
    )
    trainer.data = {**trainer.data, **change}
    with pytest.raises(dp.InputError, match=text):
        trainer.setup_model()


def test_weights_and_yaml_that_do_not_belong_together(weights: Path, tmp_path: Path) -> None:
    small = weights / "shrunk.pt"
    for start, more in (
        (start_file(tmp_path, model=small_detector("yolov8n")), {"pretrained": str(small)}),
        (small, {"pretrained": False}),
    ):
        trainer = trainer_of(
            ResumableTrainer, StageSettings(stage="dense"), start, tmp_path, **more
        )
        with pytest.raises(dp.InputError, match="can neither be built from its yaml nor give"):
            trainer.setup_model()
    fused = load_model(small).fuse(verbose=False)
    fused.yaml["backbone"] = load_model(small).yaml["backbone"]
    path = start_file(tmp_path / "fused", model=fused)
    trainer = trainer_of(ResumableTrainer, StageSettings(stage="dense"), path, tmp_path)
    with pytest.raises(dp.InputError, match=r"was saved after fuse\(\)"):
        trainer.setup_model()


def test_inputs_that_cannot_travel_are_refused() -> None:
    for chosen in (dp.CoupledChannels(noise()), dp.CoupledChannels(forward=print)):
        with pytest.raises(dp.InputError, match="leave them out: the trainer takes an image"):
            constrained(ADMM, dp.Budget(macs=0.5), chosen)


PLAIN = """
import json, os, sys
sys.modules["detprune"] = sys.modules["detprune_yolo"] = None
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", ULTRALYTICS_SAFE_LOAD="1")
import numpy as np
from ultralytics import YOLO
path, data, out = sys.argv[1:]
common = dict(data=data, imgsz=64, device="cpu", plots=False, verbose=False, project=out, workers=0)
shapes = lambda model: {n: list(p.shape) for n, p in model.named_parameters()}
model = YOLO(path)
found = {"shapes": shapes(model.model), "info": model.info()}
found["map50"] = model.val(batch=10, **common).box.map50
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
found["pictures"] = len(model.predict(picture, imgsz=64, device="cpu", verbose=False, half=True))
found["onnx"] = YOLO(path).export(format="onnx", imgsz=64)
fused = YOLO(path)
fused.fuse()
found["half"] = str(next(fused.model.half().parameters()).dtype)
try:
    YOLO(path).train(epochs=1, name="train", **common)
except KeyError as error:
    found["train"] = str(error)
found["left"] = [name for _, _, files in os.walk(f"{out}/train") for name in files]
print("RESULT" + json.dumps(found))
"""


def test_ultralytics_alone_does_everything_but_train_a_dense_network(
    weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pruned.pt"
    small = load_model(weights / "shrunk.pt")
    torch.save(pruned_checkpoint(small, None), path)
    output = subprocess.run(
        [sys.executable, "-c", PLAIN, str(path), str(images()), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert output.returncode == 0, output.stderr[-3000:]
    found = json.loads(output.stdout.split("RESULT")[1])
    assert {n: tuple(s) for n, s in found["shapes"].items()} == shapes(small)
    assert found["pictures"] == 1
    assert 0 <= found["map50"] <= 1
    assert found["half"] == "torch.float16"
    assert Path(found["onnx"]).is_file()
    assert CHANNELS_REMOVED in found["train"]
    assert "detprune_yolo.RetrainingTrainer" in found["train"]
    assert not [name for name in found["left"] if name.endswith(".pt")]
