"""Files and names that are refused as Ultralytics checkpoints, each with its way out; nothing in them runs."""

import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from tiny_detector import tiny_detector, write_pruned
from torch import nn
from ultralytics.nn.tasks import SemanticSegmentationModel, yaml_model_load

from detprune.errors import InputError
from detprune_yolo.weights.checkpoints import (
    check_output_name,
    load_model,
    pruned_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_pruned(tmp_path / "start.pt")
    return tmp_path / "start.pt"


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


@pytest.mark.parametrize("value", ["1", "0", "false", ""])
def test_the_variable_lets_trusted_code_run_where_there_is_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    proof, path = tmp_path / "proof", tmp_path / "own.pt"
    torch.save({**pruned_checkpoint(tiny_detector(), None), "more": Evil(proof)}, path)
    monkeypatch.setenv("DETPRUNE_UNSAFE_LOAD", value)
    if value == "1":
        load_model(path)
    else:
        with pytest.raises(InputError, match=r"refused to load .*DETPRUNE_UNSAFE_LOAD=1"):
            load_model(path)
    assert proof.exists() == (value == "1")


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("module", ["ultralytics.nn.modules.block", "ultralytics.nn.modules.later"])
def test_layers_of_another_version_of_ultralytics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, trust: bool
) -> None:
    later = type("Later", (nn.Identity,), {"__module__": module})
    path, network = tmp_path / "later.pt", tiny_detector()
    network.model[0].add_module("later", later())
    with monkeypatch.context() as there:
        there.setitem(sys.modules, module, sys.modules.get(module) or types.ModuleType(module))
        there.setattr(sys.modules[module], "Later", later, raising=False)
        torch.save(pruned_checkpoint(network, None), path)
    with pytest.raises(
        InputError, match=rf"refers to {module}\.Later, .* install the one that wrote"
    ):
        load_model(path, trust=trust)


def test_a_checkpoint_with_a_turned_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pt"
    torch.save(pruned_checkpoint(tiny_detector(), None), path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.compress_size // 2 + 200] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"flipped\.pt is damaged: .*checksum.*; copy or download"):
        load_model(path)


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
        InputError,
        match=r"yolov7 or yolov9 repository .*models\.yolo\.Model.*yolov5su\.pt or yolov9t\.pt",
    ):
        load_model(tmp_path / "old.pt", trust=trust)


EVENTS = (
    struct.pack("<QI", 24, 0x214B7FA3)
    + b"\x09"
    + struct.pack("<d", 1.7e9)
    + b"\x1a\x0dbrain.Event:2"
    + bytes(4)
)
DARKNET = struct.pack("<3iq", 0, 2, 5, 32_013_312) + struct.pack("<8f", *range(8))


STATE = OrderedDict({"layer.weight": torch.ones(2, 2)})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("yolov3.weights", DARKNET, "Darknet .weights file of the anchor-based family"),
        ("renamed.pt", DARKNET, "Darknet .weights file of the anchor-based family"),
        ("yolov3.cfg", b"[net]\nbatch=1\n", "Darknet .cfg"),
        ("tiny.yaml", b"nc: 3\n", "is a text file without weights"),
        ("net.onnx", b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
        ("onnx.pt", b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
        (
            "net.engine",
            b"\x93\x01" * 20,
            r"a network exported to TensorRT, .* give the \.pt checkpoint",
        ),
        ("net_int8.tflite", b"\x93\x01" * 20, r"a network exported to LiteRT, .* give the \.pt"),
        ("empty.pt", b"", "empty, truncated or damaged"),
        ("noise.pt", b"\x93\x01\x02\x03" * 20, "empty, truncated or damaged"),
        ("page.pt", b"<!DOCTYPE html><html>", "web page"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("zip.pt", b"PK\x05\x06" + bytes(18), "no data.pkl"),
        ("best.pt", bytes(257) + b"ustar\x0000" + bytes(248), "is a tar archive and no checkpoint"),
        ("best.pt", b"\x1f\x8b\x08" + bytes(30), "is compressed by gzip and no checkpoint"),
        (
            "best.pt.dvc",
            b"outs:\n- md5: 3f78\n  path: best.pt\n",
            r"give .*best\.pt, which `dvc pull`",
        ),
        ("net.pkl", pickle.dumps(dict(STATE), 4), r"pickle that torch\.save did not write.*YOLO"),
        ("._best.pt", b"\x00\x05\x16\x07\x00\x02" + bytes(26), r"AppleDouble.* give .*/best\.pt"),
        ("best.pt", b"\x00\x05\x16\x07\x00\x02" + bytes(26), "give the file beside it"),
        (
            "events.out.tfevents.1.host.2.0",
            EVENTS,
            "TensorBoard .* give a checkpoint of that training",
        ),
    ],
)
def test_other_formats(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("text", ["SECRET=hunter2\n", "ID=hunter2\n", "client=hunter2\nx\n"])
def test_no_line_of_a_text_is_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets").write_text(text)
    (tmp_path / "net.pt").symlink_to(tmp_path / "secrets")
    with pytest.raises(InputError, match="neither a torch archive nor a pickle") as caught:
        load_model(tmp_path / "net.pt")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (STATE, "a state dict, 1 tensors without their network"),
        ({"state_dict": dict(STATE)}, "a state dict, 1 tensors without their network"),
        ({"model": STATE, "start_epoch": 300}, "dp.Pruner in its own training loop"),  # YOLOX's
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


def test_the_tensors_that_a_run_keeps_of_a_stage(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    best = checkpoints / "dense" / "weights" / "best.pt"
    best.parent.mkdir(parents=True)
    torch.save(STATE, checkpoints / "dense.pt")
    best.touch()
    with pytest.raises(InputError, match="a state dict, 1 tensors"):
        load_model(checkpoints / "dense.pt")
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(InputError, match=f"of a run without their network; give {best}, which"):
        load_model(checkpoints / "dense.pt")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*yolov3-tinyu.pt; nothing is downloaded"):
        load_model(tmp_path / "yolov3-tinyu.pt")
    with pytest.raises(
        InputError, match=r"is a folder; give a checkpoint file, such as the best\.pt"
    ):
        load_model(tmp_path)
    best = tmp_path / "train" / "weights" / "best.pt"
    best.parent.mkdir(parents=True)
    best.touch()
    for folder in (best.parent, best.parent.parent):
        with pytest.raises(InputError, match=f"{folder} is a folder; .* such as {best}$"):
            load_model(folder)


@pytest.mark.parametrize("end", ["_openvino_model", "_int8_openvino_model", ".mlpackage"])
def test_a_folder_of_an_exported_network_names_the_file_to_take(tmp_path: Path, end: str) -> None:
    exported = tmp_path / f"best{end}"
    exported.mkdir()
    with pytest.raises(InputError, match=r"exported to .*; give the \.pt checkpoint"):
        load_model(exported)


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


def test_networks_that_cannot_be_pruned(tmp_path: Path) -> None:
    network = SemanticSegmentationModel(yaml_model_load("yolo26n-sem.yaml"), verbose=False)
    torch.save({"model": network}, tmp_path / "start.pt")
    with pytest.raises(
        InputError, match=r"SemanticSegmentationModel, which ends in SemanticSegment; what can"
    ):
        load_model(tmp_path / "start.pt")
