"""Export to Ultralytics' other formats: what each needs, where it goes, and on which images int8 is calibrated."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from task_networks import drawn, layers_of, start_file
from tiny_detector import tiny_detector
from trainings import tiny_model

from detprune.errors import DetpruneError, InputError

# isort: split
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.export import formats as known
from detprune_yolo.export.exporter import CalibratedExporter, exported
from detprune_yolo.export.formats import Format, formats
from detprune_yolo.export.placing import check_place, put, size_of
from detprune_yolo.export.timing import outputs, program
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

pytestmark = pytest.mark.slow

SIZE = (64, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formats") / "pruned.pt"
    save_checkpoint(path, pruned_checkpoint(tiny_detector(), None))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(DrawnSet(train=9, val=4, size=64, seed=1), tmp_path_factory.mktemp("data") / "set")


def test_every_format_of_ultralytics_is_there() -> None:
    found = formats()
    assert {"onnx", "openvino", "torchscript", "engine", "ncnn", "mnn"} <= found.keys()
    assert "-" not in found
    assert found["openvino"].is_folder
    assert found["openvino"].file_name("pruned", True) == "pruned_int8_openvino_model"
    assert found["onnx"].file_name("pruned", False) == "pruned.onnx"
    assert not found["torchscript"].int8


@pytest.mark.parametrize(
    ("name", "int8", "message"),
    [
        ("torchscript", True, "TorchScript is not exported in int8; formats with int8: .*openvino"),
        ("edgetpu", False, "holds no float32; add --int8"),
        ("rknn", True, "exported on the device that runs it"),
        ("engine", False, "exported on the device that runs it"),
        ("openvino", True, "needs openvino, nncf, not .*pip install openvino nncf"),
        ("paddle", False, "needs paddle, x2paddle, .*pip install paddlepaddle x2paddle"),
    ],
)
def test_what_a_format_needs(
    name: str, int8: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "find_spec", lambda package: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        formats()[name].check(int8)


def test_places(tmp_path: Path) -> None:
    folder, file = formats()["openvino"], formats()["torchscript"]
    with pytest.raises(InputError, match="has to end in _openvino_model"):
        check_place(tmp_path / "net.xml", folder)
    with pytest.raises(InputError, match=r"has to end in \.torchscript"):
        check_place(tmp_path / "net.pt", file)
    own = tmp_path / "my_openvino_model"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no folder that Ultralytics exported"):
        check_place(own, folder)
    with pytest.raises(InputError, match="a folder is there"):
        check_place(own.rename(tmp_path / "my.torchscript"), file)


def test_an_older_export_is_replaced_whole(tmp_path: Path) -> None:
    place, wanted = tmp_path / "deep" / "net_openvino_model", formats()["openvino"]
    for number in range(2):
        written = tmp_path / f"written{number}"
        written.mkdir()
        (written / "metadata.yaml").write_text("task: detect")
        (written / "net.bin").write_bytes(b"12345"[number:])
        check_place(place, wanted)
        put(written, place)
    assert sorted(p.name for p in place.iterdir()) == ["metadata.yaml", "net.bin"]
    assert (place / "net.bin").read_bytes() == b"2345"
    assert size_of(place) == 4 + len("task: detect")
    assert [p.name for p in place.parent.iterdir()] == [place.name]


def test_torchscript_gives_what_the_network_gives(weights: Path) -> None:
    image = torch.rand(1, 3, *SIZE)
    with exported(weights, formats()["torchscript"], int8=False, size=SIZE, data=None) as file:
        (found,) = outputs(file, image)
        program(file, "torchscript", image)()
        held = file.parent
    assert not held.exists()
    with torch.inference_mode():
        expected = load_model(weights).fuse(verbose=False)(image)[0]
    assert torch.allclose(found, expected, atol=1e-3)


def test_int8_is_calibrated_and_close(weights: Path, data: Path) -> None:
    image = torch.rand(1, 3, *SIZE)
    with exported(weights, formats()["onnx"], int8=True, size=SIZE, data=data) as file:
        kinds = {node.op_type for node in onnx.load(file).graph.node}
        assert "DequantizeLinear" in kinds
        program(file, "onnx", image)()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"images": image.numpy()})
    with torch.inference_mode():
        expected = load_model(weights).fuse(verbose=False)(image)[0].numpy()
    assert 0 < np.abs(found[:, :4] - expected[:, :4]).max() < 16  # pixels


def test_calibration_takes_training_images(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detprune_yolo.export.exporter.CALIBRATION_IMAGES", 4)
    exporter = CalibratedExporter.__new__(CalibratedExporter)
    exporter.args = get_cfg(DEFAULT_CFG_DICT, {"data": str(data), "batch": 1, "imgsz": 64})
    exporter.imgsz = list(SIZE)
    files = [
        file for batch in exporter.get_int8_calibration_dataloader() for file in batch["im_file"]
    ]
    assert len(set(files)) == 4
    assert all(Path(file).parent.name == "train" for file in files)
    assert not list(data.parent.rglob("*.cache"))


@pytest.mark.parametrize("description", ["yolov8n-cls", "yolov8n-seg"])
def test_int8_of_other_tasks(tmp_path: Path, description: str) -> None:
    start = start_file(tmp_path / "start.pt", description)
    place = drawn(layers_of(description)[1].task)
    with exported(start, formats()["onnx"], int8=True, size=SIZE, data=place) as file:
        kinds = {node.op_type for node in onnx.load(file).graph.node}
        assert "DequantizeLinear" in kinds
        found = outputs(file, torch.rand(1, 3, *SIZE))
    assert all(torch.isfinite(own).all() for own in found)


def test_an_export_that_fails_says_why(weights: Path) -> None:
    odd = Format("torchscript", "TorchScript", ".torchscript", True, True, False)
    with (
        pytest.raises(DetpruneError, match=r"could not export .* to TorchScript: "),
        exported(weights, odd, int8=True, size=SIZE, data=None),
    ):
        pass


def test_the_trained_network_is_left_as_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.pt", pruned_checkpoint(tiny_model(), None))
    before = (tmp_path / "net.pt").read_bytes()
    with exported(tmp_path / "net.pt", formats()["torchscript"], int8=False, size=SIZE, data=None):
        pass
    assert (tmp_path / "net.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


def test_files_of_the_users_in_an_exported_folder_stay(tmp_path: Path) -> None:
    place, written = tmp_path / "pruned_openvino_model", tmp_path / "new"
    for folder, text in ((place, "old"), (written, "new")):
        folder.mkdir()
        for name in ("metadata.yaml", "model.xml"):
            (folder / name).write_text(text)
    (place / "labels.txt").write_text("mine")
    (place / "bench" / "june").mkdir(parents=True)
    (place / "bench" / "june" / "times.csv").write_text("mine")
    (place / "images").symlink_to(tmp_path)
    put(written, place)
    assert (place / "model.xml").read_text() == "new"
    assert (place / "labels.txt").read_text() == "mine"
    assert (place / "bench" / "june" / "times.csv").read_text() == "mine"
    assert (place / "images").readlink() == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {place.name, written.name}
