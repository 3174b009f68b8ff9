"""Whole runs from the command line: files, report, kills, export, and Ultralytics alone with the result."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detection_recipe import TINY

from command_line import detprune as call
from command_line import detprune_here, kill_after
from detprune.run.directory import RunDirectory

# isort: split
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.export.formats import formats
from detprune_yolo.export.placing import size_of
from detprune_yolo.weights.checkpoints import load_model, read_masks

pytestmark = pytest.mark.slow

RecipeFile = Callable[[Path, dict[str, Any]], Path]

QUIET = {"preloaded": "yolo", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

# detprune in a process in which every attempt to reach another host fails
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args}")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
import subprocess
popen = subprocess.Popen.__init__
def watched(self, args, *more, **options):
    assert "pip" not in str(args).replace("pipe", ""), args
    popen(self, args, *more, **options)
subprocess.Popen.__init__ = watched
from detprune.run.cli.main import main
sys.argv = ["detprune", *sys.argv[1:]]
main()
"""


def detprune(*arguments: object, code: int = 0, preloaded: str | None = "yolo") -> str:
    done = call(*arguments, code=code, preloaded=preloaded, program=OFFLINE)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: RecipeFile) -> Iterator[Path]:
    """A run directory of the tiny recipe, made without any network."""
    folder = tmp_path_factory.mktemp("detector")
    arguments = ("run", recipe_file(folder, TINY), "--out", folder / "run")
    output = detprune(*arguments, preloaded=None)  # what is imported is offline too
    (folder / "output.txt").write_text(output, encoding="utf-8")
    return folder / "run"


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["metric"] == "mAP@0.5"
    assert list(summary["metrics"]["final"]) == [
        "mAP@0.5",
        "mAP@[.5:.95]",
        "mAP50 (Ultralytics' own)",
        "mAP50-95 (Ultralytics' own)",
    ]
    assert abs(summary["compression"] - 3.33) < 0.01
    pruned = {layer["name"] for layer in summary["layers"] if layer["pruned"]}
    assert len(pruned) == 18
    assert not pruned & {"model.0.conv.weight", "model.20.cv2.0.2.weight"}
    output = (finished.parent / "output.txt").read_text()
    assert "What is pruned, how far, and what is left dense" in output
    assert "constrained training fixes {'optimizer': 'SGD', 'patience': 0}" in " ".join(
        output.split()
    )
    for stage in ("dense", "constrained", "retrain"):  # training sees nothing of the test images
        options = yaml.safe_load((finished / "checkpoints" / stage / "args.yaml").read_text())
        assert options["split"] == "val"
    assert "which training never saw" in summary["notes"][0]
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Pictures" in page
    assert (finished / "pictures" / "detections.jpg").stat().st_size > 10_000
    assert "pycocotools" in page or "mAP@[.5:.95]" in page
    assert not list(
        finished.rglob("last.detprune.pt")
    )  # five times the network, and of no more use
    events = RunDirectory(finished).events()
    for kind, count in (("epoch", 9), ("outer", 4), ("hard_prune_check", 3), ("stage", 3)):
        assert sum(e["event"] == kind for e in events) == count


def test_killed_in_every_stage_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path
) -> None:
    recipe, run = finished.parent / "recipe.yaml", tmp_path / "run"
    arguments = ("run", recipe, "--out", run, "--resume")
    # accumulation spans the end of these epochs, and mosaic is closed before the last
    kill_after(arguments, run, (("dense", 1), ("constrained", 1), ("constrained", 2)), **QUIET)
    kill_after(arguments, run, [("retrain", 2)], **{**QUIET, "preloaded": None})
    detprune(*arguments, preloaded=None)
    expected = load_model(finished / "pruned.pt").state_dict()
    found = load_model(run / "pruned.pt").state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    events = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in RunDirectory(path).events()]
        for path in (finished, run)
    ]
    assert events[0] == events[1]


def test_killed_between_the_last_epoch_and_the_mark_of_its_stage(
    finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    marks = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps({"dense": marks["dense"]}))
    for file in ("pruned.pt", "summary.json", "checkpoints/hard_pruned.pt"):
        (run / file).unlink()
    shutil.rmtree(run / "checkpoints" / "retrain")
    detprune("run", run, "--resume")  # constrained training is run again: its sidecar is gone
    expected = load_model(finished / "pruned.pt").state_dict()
    found = load_model(run / "pruned.pt").state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


PLAIN = """
import json, os, sys
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", ULTRALYTICS_SAFE_LOAD="1")
from ultralytics import YOLO
path, data, out = sys.argv[1:]
model = YOLO(path)
zeros = {n: int((p == 0).sum()) for n, p in model.model.named_parameters()}
metrics = model.val(data=data, imgsz=64, batch=16, device="cpu", plots=False, verbose=False, project=out)
exported = model.export(format="onnx", imgsz=64)
assert not any(name.startswith("detprune") for name in sys.modules)
print("RESULT" + json.dumps({"zeros": zeros, "map50": metrics.box.map50, "onnx": exported}))
"""


def test_ultralytics_alone_finds_the_same_map_and_the_same_zeros(
    finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pruned.pt"
    shutil.copyfile(finished / "pruned.pt", path)
    resolved = json.loads((finished / "summary.json").read_text())
    data = yaml.safe_load((finished / "checkpoints/retrain/args.yaml").read_text())["data"]
    output = subprocess.run(
        [sys.executable, "-c", PLAIN, str(path), data, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=280,
    ).stdout
    found = json.loads(output.split("RESULT")[1])
    own = resolved["metrics"]["final"]["mAP50 (Ultralytics' own)"]
    assert found["map50"] == pytest.approx(own, abs=1e-6)
    masks = read_masks(path)
    assert masks
    for name, mask in masks.items():
        assert found["zeros"][name] == int((~mask).sum())
    assert Path(found["onnx"]).is_file()


def test_export_from_the_command_line(finished: Path, tmp_path: Path) -> None:
    output = detprune("export", finished, "--format", "onnx", "--out", tmp_path / "x.onnx")
    masks = read_masks(finished / "pruned.pt")
    assert masks
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert f"{zeros:,} of" in output
    assert (tmp_path / "x.onnx").is_file()
    assert "on the same images" in output  # the metrics of the file
    assert "of the dense network in float32: ratio" in output
    error = detprune("export", finished, "--format", "tflite", code=2)
    assert "known: " in error
    assert "onnx, openvino" in error
    assert "holds no finished run" in detprune("export", tmp_path, code=2)


@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_int8_is_measured_on_the_exported_file(
    finished: Path, tmp_path: Path, file_format: str
) -> None:
    place = tmp_path / f"x_int8{formats()[file_format].suffix}"
    lines = detprune(
        "export", finished, "--format", file_format, "--int8", "--out", place
    ).splitlines()
    assert lines[-7] == str(place)
    assert lines[-6].startswith("mAP@0.5: ")
    size, ratio = lines[-2].partition(" bytes, and ")[::2]
    assert int(size.replace(",", "")) == size_of(place)
    assert float(ratio.rpartition(" ")[2]) < 0.6
    assert lines[-1].startswith(tuple("0123456789"))
    assert "ms an image of 64 × 64, one thread" in lines[-1]
    error = detprune("export", finished, "--format", "torchscript", "--int8", code=2)
    assert "unknown export format 'torchscript'" in error


def test_int8_needs_the_images_of_the_run(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"].update(drawn=None, yaml=str(tmp_path / "gone.yaml"))
    (run / "recipe.yaml").write_text(
        yaml.safe_dump({**recipe, "data": {**recipe["data"], "split": "val"}})
    )
    error = detprune("export", run, "--int8", code=2)
    assert "int8 is calibrated on training images" in error
    assert "its metrics are not measured" in detprune("export", run, "--format", "torchscript")


def test_int8_names_images_that_are_missing_by_now(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    data = draw(DrawnSet(train=2, val=2, size=64), tmp_path / "data")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"].update(drawn=None, yaml=str(data), split="val")
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shutil.rmtree(tmp_path / "data" / "images" / "train")
    error = detprune("export", run, "--int8", code=2)
    assert f"{data} cannot be used as it is" in error
    assert (
        f"folders or lists of images that do not exist (1): train: {data.parent / 'images' / 'train'}"
        in error
    )


def test_a_checkpoint_is_pruned_without_a_dense_stage(
    finished: Path, tmp_path: Path, recipe_file: RecipeFile
) -> None:
    best = finished / "checkpoints" / "dense" / "weights" / "best.pt"
    recipe = {**TINY, "model": {"weights": str(best)}, "method": "magnitude"}
    recipe["stages"] = {
        "constrained": {"epochs": 1, "train": {"lr0": 0.01}},
        "retrain": {"epochs": 1, "train": {"lr0": 0.01}},
    }
    detprune("run", recipe_file(tmp_path, recipe), "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    dense = json.loads((finished / "summary.json").read_text())["metrics"]["dense"]
    assert summary["metrics"]["dense"] == pytest.approx(dense)
    assert summary["verified"]["nonzero"] == sum(
        layer["nonzero"] for layer in summary["layers"] if layer["pruned"]
    )


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("model={weights: none.pt}", "none.pt"),
        ("model.cfg=yolov3-tony.yaml", "neither an architecture of Ultralytics"),
        ("data={yaml: nowhere.yaml}", "nowhere.yaml"),
        ("budget.exclude=[nothing.*]", "matches no weight"),
        ("train.imgs=3", "did you mean 'imgsz'"),
    ],
)
def test_bad_input_is_told_before_training_and_leaves_results_alone(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    assignment: str,
    text: str,
) -> None:
    def run(out: Path) -> str:
        arguments = ("run", finished.parent / "recipe.yaml", "--out", out, "--set", assignment)
        assert detprune_here(*arguments, monkeypatch=monkeypatch) == 2
        return " ".join(capsys.readouterr().err.split())

    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert text in run(tmp_path / "run")
    run(finished)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("file/run", "cannot write into the run directory"),
        ("Bob's runs/run", "apostrophe"),
    ],
)
def test_a_run_directory_that_cannot_be_used(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    text: str,
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    arguments = ("run", finished.parent / "recipe.yaml", "--out", tmp_path / folder)
    assert detprune_here(*arguments, monkeypatch=monkeypatch) == 2
    assert text in " ".join(capsys.readouterr().err.split())
