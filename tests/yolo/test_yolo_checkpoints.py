"""Ultralytics checkpoints: what is written loads in plain Ultralytics, and what is read is what was written."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_detector import prune, pruned_counts, tiny_detector, write_pruned, zeros_of

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune_yolo.weights.checkpoints import (
    load_model,
    pruned_checkpoint,
    read_masks,
    save_checkpoint,
    train_args_of,
)
from detprune_yolo.weights.masks import pack_bits

PLAIN_PROCESS = """
import json, os, sys
import cv2, numpy as np
from ultralytics import YOLO

path, folder, names = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
yolo = YOLO(path)
weights = dict(yolo.model.named_parameters())
zeros = {name: int((weights[name] == 0).sum()) for name in names}
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
results = yolo.predict(picture, imgsz=64, device="cpu", verbose=False)
fused = dict(yolo.predictor.model.model.named_parameters())
zeros_fused = {name: int((fused[name] == 0).sum()) for name in names}
for kind in ("images", "labels"):
    os.makedirs(f"{folder}/{kind}")
for i in range(2):
    cv2.imwrite(f"{folder}/images/{i}.png", picture)
    open(f"{folder}/labels/{i}.txt", "w").write("1 0.5 0.5 0.4 0.4\\n")
open(f"{folder}/data.yaml", "w").write(
    f"path: {folder}\\ntrain: images\\nval: images\\nnames: [a, b, c]\\n"
)
common = dict(data=f"{folder}/data.yaml", imgsz=64, device="cpu", workers=0, plots=False, verbose=False)
metrics = YOLO(path).val(project=folder, name="val", batch=2, **common)
YOLO(path).train(project=folder, name="train", epochs=1, batch=2, **common)
print(json.dumps({
    "zeros": zeros,
    "zeros_fused": zeros_fused,
    "detprune": [m for m in sys.modules if m.startswith("detprune")],
    "pictures": len(results),
    "map50": float(metrics.box.map50),
    "trained": os.path.exists(f"{folder}/train/weights/best.pt"),
}))
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_pruned(tmp_path / "start.pt")
    return tmp_path / "start.pt"


def test_round_trip(tmp_path: Path) -> None:
    model = tiny_detector()
    masks = prune(model)
    path = tmp_path / "pruned.pt"
    save_checkpoint(path, pruned_checkpoint(model, masks, train_args={"imgsz": 96, "lr0": 0.02}))
    loaded = load_model(path)
    assert type(loaded) is type(model)
    for name, tensor in loaded.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            wanted = model.state_dict()[name].half().float()
            torch.testing.assert_close(tensor, wanted, rtol=0, atol=0)
    assert zeros_of(dict(loaded.named_parameters()), masks) == pruned_counts(masks)
    trainable = {n for n, p in loaded.named_parameters() if p.requires_grad}
    fixed = {n for n, _ in loaded.named_parameters()} - trainable
    assert fixed == {"model.20.dfl.conv.weight"}
    assert loaded.names == model.names
    assert loaded.yaml == model.yaml
    assert torch.equal(loaded.stride, model.stride)
    assert loaded.args["imgsz"] == 96
    assert loaded.args["lr0"] == 0.02
    assert train_args_of(path)["imgsz"] == 96
    read = read_masks(path)
    assert read is not None
    assert read.keys() == masks.keys()
    assert all(torch.equal(read[name], masks[name]) for name in masks)


def test_masks_keep_weights_that_half_precision_loses(tmp_path: Path) -> None:
    model = tiny_detector()
    masks = prune(model)
    name = next(iter(masks))
    model.get_parameter(name).data[masks[name]] = 1e-9
    save_checkpoint(tmp_path / "pruned.pt", pruned_checkpoint(model, masks))
    read = read_masks(tmp_path / "pruned.pt")
    assert read is not None
    assert torch.equal(read[name], masks[name])
    assert not load_model(tmp_path / "pruned.pt").get_parameter(name).any()


def test_the_model_is_not_changed_and_hooks_stay_behind() -> None:
    model = tiny_detector().to(memory_format=torch.channels_last)
    masks = prune(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    hook = model.model[0].register_forward_hook(lambda *_: None)
    model.criterion = lambda x: x
    held = pruned_checkpoint(model, masks)["model"]
    assert not held.model[0]._forward_hooks
    assert len(model.model[0]._forward_hooks) == 1
    hook.remove()
    assert held.criterion is None
    assert model.criterion is not None
    assert held.model[2].conv.weight.is_contiguous()
    assert not any(p.requires_grad for p in held.parameters())
    assert {p.dtype for p in held.parameters()} == {torch.float16}
    assert model.model[2].conv.weight.dtype == torch.float32
    assert model.model[2].conv.weight.requires_grad
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_two_saves_differ_in_the_date_alone() -> None:
    model = tiny_detector()
    masks = prune(model)
    first, second = pruned_checkpoint(model, masks), pruned_checkpoint(model, masks)
    plain = [k for k in first if k not in ("date", "model", "detprune")]
    assert {k: first[k] for k in plain} == {k: second[k] for k in plain}
    states = first["model"].state_dict(), second["model"].state_dict()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert first["model"].args == second["model"].args


def test_values_that_only_one_machine_has_become_text() -> None:
    args = {"project": Path("runs"), "device": torch.device("cpu"), "classes": (1, 2), "mine": 1}
    held = pruned_checkpoint(tiny_detector(), None, train_args=args)["train_args"]
    assert held["project"] == "runs"
    assert held["device"] == "cpu"
    assert held["classes"] == [1, 2]
    assert "mine" not in held


@pytest.mark.slow
def test_plain_ultralytics_takes_the_file(tmp_path: Path) -> None:
    masks = write_pruned(tmp_path / "pruned.pt")
    environment = {
        **os.environ,
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "0",
        "YOLO_CONFIG_DIR": str(tmp_path),
        "ULTRALYTICS_SAFE_LOAD": "1",
        "OMP_NUM_THREADS": "1",
    }
    script = tmp_path / "plain.py"
    script.write_text(PLAIN_PROCESS)
    arguments = [str(tmp_path / "pruned.pt"), str(tmp_path / "data"), ",".join(masks)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["zeros"] == pruned_counts(masks)
    assert found["zeros_fused"] == pruned_counts(masks)
    assert found["detprune"] == []
    assert found["pictures"] == 1
    assert 0 <= found["map50"] <= 1
    assert found["trained"]


def test_ultralytics_own_checkpoint_loads_without_masks(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    ema = tiny_detector().half().requires_grad_(False)
    torch.save({"epoch": 1, "model": None, "ema": ema, "train_args": {"imgsz": 64}}, path)
    assert read_masks(path) is None
    loaded = load_model(path)
    assert loaded.model[0].conv.weight.requires_grad
    assert torch.equal(loaded.model[0].conv.weight, ema.model[0].conv.weight.float())


def test_what_cannot_be_saved() -> None:
    model = tiny_detector()
    masks = prune(model)
    name = next(iter(masks))
    with pytest.raises(InputError, match="the model has no such parameter"):
        pruned_checkpoint(model, {"model.99.weight": masks[name]})
    with pytest.raises(InputError, match=r"has to be torch\.bool of the shape"):
        pruned_checkpoint(model, {name: masks[name][:1]})
    with pytest.raises(DetpruneError, match=f"{name}: .* outside the mask are not zero"):
        pruned_checkpoint(model, {name: torch.zeros_like(masks[name])})
    model.get_parameter(name).data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=name):
        pruned_checkpoint(model, None)


def test_masks_that_do_not_fit(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    entry = next(iter(content["detprune"]["masks"].values()))
    size = math.prod(entry["shape"])
    for wrong in (
        {"bits": torch.zeros(3, dtype=torch.uint8)},
        {"bits": [1, 2]},
        {"kept_zeros": torch.tensor([size], dtype=torch.int32)},
        {"kept_zeros": torch.tensor([-1], dtype=torch.int32)},
        {"kept_zeros": torch.tensor([0.0])},
        {"kept_zeros": torch.tensor([], dtype=torch.int32), "shape": [1, *entry["shape"]]},
        {},
    ):
        held = {"shape": entry["shape"], **wrong}
        content["detprune"]["masks"] = {
            **content["detprune"]["masks"],
            next(iter(content["detprune"]["masks"])): held,
        }
        torch.save(content, checkpoint)
        with pytest.raises(InputError, match="does not fit the weight of shape"):
            read_masks(checkpoint)


@pytest.mark.parametrize("lost", [0.0, 0.01, 0.5])
def test_masks_cost_next_to_nothing_beside_their_zeros(tmp_path: Path, lost: float) -> None:
    model = tiny_detector()
    masks = prune(model)
    for name, mask in masks.items():
        weight = model.get_parameter(name).data
        weight.mul_(torch.where(mask & (torch.rand(mask.shape) < lost), 1e-9, 1.0))
    without, path = tmp_path / "without.pt", tmp_path / "pruned.pt"
    save_checkpoint(without, pruned_checkpoint(model, None))
    save_checkpoint(path, pruned_checkpoint(model, masks))
    read = read_masks(path)
    assert read is not None
    assert all(torch.equal(read[name], mask) for name, mask in masks.items())
    cost = path.stat().st_size - without.stat().st_size
    places = sum(mask.numel() for mask in masks.values())
    assert cost < 6_000 + (0 if lost == 0.0 else min(places / 8, 4 * lost * places))


def test_files_of_earlier_versions_load(tmp_path: Path) -> None:
    model = tiny_detector()
    masks = prune(model)
    checkpoint = pruned_checkpoint(model, masks)
    checkpoint["detprune"]["masks"] = pack_bits(masks)
    torch.save(checkpoint, tmp_path / "old.pt")
    read = read_masks(tmp_path / "old.pt")
    assert read is not None
    assert all(torch.equal(read[name], mask) for name, mask in masks.items())


def test_a_pruned_file_is_smaller_than_the_dense_one(tmp_path: Path) -> None:
    model = tiny_detector()
    torch.save(pruned_checkpoint(model, None), tmp_path / "dense.pt")
    save_checkpoint(tmp_path / "same.pt", pruned_checkpoint(model, None))
    masks = prune(model)
    save_checkpoint(tmp_path / "pruned.pt", pruned_checkpoint(model, masks))
    dense, same, pruned = (
        (tmp_path / f"{name}.pt").stat().st_size for name in ("dense", "same", "pruned")
    )
    assert same < dense
    assert pruned < dense / 2
    loaded = load_model(tmp_path / "pruned.pt").state_dict()
    kept = pruned_checkpoint(model, None)["model"].float().state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in kept.items())
