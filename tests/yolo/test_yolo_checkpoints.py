"""Ultralytics checkpoints: what is written loads in plain Ultralytics; what is read is read safely."""

import json
import os
import pickle
import struct
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from tiny_detector import prune, pruned_counts, tiny_detector, write_pruned, zeros_of
from torch import nn
from ultralytics.nn.tasks import SegmentationModel

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune_yolo.weights.checkpoints import (
    check_output_name,
    load_model,
    pruned_checkpoint,
    read_masks,
    save_checkpoint,
    train_args_of,
)

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


# -------------------------------------------------------------------- writing and reading back


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
    packed = content["detprune"]["masks"]
    entry = next(iter(packed.values()))
    entry["bits"] = entry["bits"][:-1]
    torch.save(content, checkpoint)
    with pytest.raises(InputError, match="does not fit the weight of shape"):
        read_masks(checkpoint)


# -------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["yolov3-tiny.pt", "yolov3.pt", "yolov3-spp.pt", "yolov5s.pt"])
def test_names_that_ultralytics_renames(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"look for .*{name[:-3]}u.pt"):
        check_output_name(Path("runs") / name)
    with pytest.raises(InputError, match="choose another name"):
        save_checkpoint(tmp_path / name, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov3-tinyu.pt", "publishes and downloads"),
        ("pruned.pth", "name it \\*.pt"),
        ("it's.pt", "without apostrophes"),
    ],
)
def test_other_names_that_cannot_be_used(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_output_name(tmp_path / name)


@pytest.mark.parametrize("name", ["pruned.pt", "yolov3-tiny-pruned.pt", "hard_pruned.pt"])
def test_names_that_can_be_used(tmp_path: Path, name: str) -> None:
    check_output_name(tmp_path / name)


def test_a_file_that_ultralytics_would_rename_is_not_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint.parent / "runs"  # with a "u", Ultralytics opens it
    folder.mkdir()
    checkpoint.rename(folder / "yolov3-tiny.pt")
    load_model(folder / "yolov3-tiny.pt")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"look for yolov3-tinyu\.pt\); rename the file"):
        load_model(Path("yolov3-tiny.pt"))


# -------------------------------------------------------------------- files that are refused


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("form", ["checkpoint", "torch", "old torch", "pickle"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, form: str) -> None:
    proof = tmp_path / "proof"
    path = tmp_path / "evil.pt"
    if form == "checkpoint":
        torch.save({**pruned_checkpoint(tiny_detector(), None), "more": Evil(proof)}, path)
    elif form == "torch":
        torch.save({"model": Evil(proof)}, path)
    elif form == "old torch":
        torch.save({"model": Evil(proof)}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"model": Evil(proof)}, protocol=4))
    with pytest.raises(
        InputError, match=r"refused to load .*(posix|nt)\.system.*unsafe_load: true"
    ):
        load_model(path)
    assert not proof.exists()
    if form == "checkpoint":  # it would have run
        load_model(path, trust=True)
        assert proof.exists()


def old_repository_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: types.ModuleType(name) for name in ("models", "models.yolo")}
    model = type("Model", (nn.Module,), {"__module__": "models.yolo"})
    modules["models.yolo"].Model = model
    with monkeypatch.context() as context:
        for name, module in modules.items():
            context.setitem(sys.modules, name, module)
        torch.save({"model": model()}, path)


@pytest.mark.parametrize("trust", [False, True])
def test_files_of_the_yolov3_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: bool
) -> None:
    old_repository_file(tmp_path / "old.pt", monkeypatch)
    with pytest.raises(
        InputError, match=r"yolov3-repository .* anchor-based family .*yolov3-tinyu"
    ):
        load_model(tmp_path / "old.pt", trust=trust)


DARKNET = struct.pack("<3iq", 0, 2, 5, 32_013_312) + struct.pack("<8f", *range(8))
STATE = OrderedDict({"layer.weight": torch.ones(2, 2)})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("yolov3.weights", DARKNET, "Darknet .weights file of the anchor-based family"),
        ("renamed.pt", DARKNET, "Darknet .weights file of the anchor-based family"),
        ("yolov3.cfg", b"[net]\nbatch=1\n", "Darknet .cfg"),
        ("tiny.yaml", b"nc: 3\n", "describes a network and holds no weights"),
        ("net.onnx", b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
        ("onnx.pt", b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
        ("empty.pt", b"", "empty, truncated or damaged"),
        ("noise.pt", b"\x93\x01\x02\x03" * 20, "empty, truncated or damaged"),
        ("page.pt", b"<!DOCTYPE html><html>", "web page"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("zip.pt", b"PK\x05\x06" + bytes(18), "no data.pkl"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (STATE, "a state dict, 1 tensors without their network"),
        ({"state_dict": dict(STATE)}, "a state dict, 1 tensors without their network"),
        ({"module_list.0.Conv2d.weight": torch.ones(1)}, "a state dict file of the anchor-based"),
        ({"model": {"model.28.anchors": torch.ones(1)}}, "a state dict file of the anchor-based"),
        ({"epoch": 3, "lr": 0.1}, "a dict with the keys 'epoch', 'lr' and no network"),
        ([1, 2], "holds a list and no network"),
    ],
)
def test_files_without_a_network(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "start.pt")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "start.pt")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*yolov3-tinyu.pt; nothing is downloaded"):
        load_model(tmp_path / "yolov3-tinyu.pt")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)


def test_truncated_and_wrong_suffix(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    half = checkpoint.with_name("half.pt")
    half.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"half.pt is empty, truncated or damaged"):
        load_model(half)
    renamed = checkpoint.rename(checkpoint.with_suffix(".pth"))
    with pytest.raises(InputError, match=r"start.pth: .* rename the file"):
        load_model(renamed)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is not supported:FutureWarning")
def test_torchscript(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(InputError, match="TorchScript archive"):
        load_model(tmp_path / "script.pt")


def test_other_tasks(tmp_path: Path) -> None:
    description = {
        "nc": 2,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
        "head": [[[0, 1], 1, "Segment", [2, 4, 8]]],
    }
    torch.save({"model": SegmentationModel(description, verbose=False)}, tmp_path / "start.pt")
    with pytest.raises(
        InputError, match=r"SegmentationModel for the task 'segment'.*only detectors"
    ):
        load_model(tmp_path / "start.pt")
