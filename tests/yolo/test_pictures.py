"""Pictures of detections: what they show, that they are repeatable, and that nothing else changes."""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detprune.errors import InputError
from detprune.run.report.pictures import read_pictures, write_pictures
from detprune_yolo import pictures
from detprune_yolo.data import examples
from detprune_yolo.data.examples import choose_examples, data_set
from detprune_yolo.pictures import detection_pictures

NAMES = ["box", "bar"]
SIDE = 64
IMAGES = 6


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    from ultralytics.nn.tasks import DetectionModel  # after the package has prepared it

    torch.manual_seed(0)
    tiny = {
        "nc": 2,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 4]]],
        "head": [[[1], 1, "Detect", ["nc"]]],
    }
    return {title: DetectionModel(dict(tiny), verbose=False) for title in ("dense", "final")}


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """Six images, the n-th with n objects, and a split called test without labels."""
    root = tmp_path / "data"
    for folder in ("images/val", "labels/val", "images/test"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(root / f"images/val/{number}.png"), pixels)
        rows = [f"{i % 2} {0.1 + 0.15 * i} 0.5 0.1 0.4\n" for i in range(number)]
        (root / f"labels/val/{number}.txt").write_text("".join(rows))
    shutil.copy(root / "images/val/0.png", root / "images/test/0.png")
    file = root / "data.yaml"
    splits = "train: images/val\nval: images/val\ntest: images/test\n"
    file.write_text(f"path: {root}\n{splits}names: {NAMES}\n")
    return file


def draw(
    models: Mapping[str, nn.Module], data_yaml: Path, out: Path, **settings: Any
) -> list[dict[str, str]]:
    return detection_pictures(models, data_yaml, out, **{"imgsz": SIDE, "conf": 1e-4} | settings)


def chosen(data_yaml: Path, images: int, split: str = "val", seed: int = 0) -> list[str]:
    data = data_set(data_yaml, split)
    return [example.file.name for example in choose_examples(data, split, images, seed)]


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def files_below(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_there_is_a_row_for_each_image_and_a_column_for_each_model(
    models: dict[str, nn.Module], data_yaml: Path, tmp_path: Path
) -> None:
    sizes = []
    for images in (1, 2, 3):
        out = tmp_path / str(images)
        (picture,) = draw(models, data_yaml, out, images=images)
        assert picture["caption"].startswith(f"{images} image")
        assert "of the val split" in picture["caption"]
        assert [file.name for file in out.iterdir()] == [picture["file"]]
        sizes.append(size(out / picture["file"]))
    widths, heights = zip(*sizes, strict=True)
    assert set(widths) == {1800 - 1800 % 3}
    assert heights[2] - heights[1] == heights[1] - heights[0] > 500  # enlarged from 64 pixels
    (alone,) = draw({"dense": models["dense"]}, data_yaml, tmp_path / "one", images=1)
    assert size(tmp_path / "one" / alone["file"])[0] < widths[0]


def test_labels_and_detections_are_handed_to_the_sheet(
    models: dict[str, nn.Module],
    data_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, list[Any]] = {}

    def sheet(columns: Mapping[str, Any], files: list[str]) -> Image.Image:
        seen.update(columns, files=files)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(pictures, "_sheet", sheet)
    draw(models, data_yaml, tmp_path / "out", images=1)
    assert list(seen) == ["ground truth", "dense", "final", "files"]
    assert seen["files"] == ["4.png"]
    truth, dense, final = (seen[title][0].boxes for title in ("ground truth", "dense", "final"))
    assert truth.cls.tolist() == [0, 1, 0, 1]
    centre, half = 0.1 * SIDE, 0.05 * SIDE
    expected = torch.tensor([centre - half, 0.3 * SIDE, centre + half, 0.7 * SIDE])
    assert torch.allclose(truth.xyxy[0], expected)
    assert len(dense) > 0
    assert not torch.equal(dense.data, final.data)
    assert float(dense.conf.min()) >= 1e-4
    assert seen["dense"][0].names == dict(enumerate(NAMES))
    draw(models, data_yaml, tmp_path / "out", images=1, conf=0.999)
    assert len(seen["dense"][0]) == 0


def test_the_same_models_and_data_give_the_same_bytes(
    models: dict[str, nn.Module], data_yaml: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        draw(models, data_yaml, tmp_path / name, images=2)
    first, second = (tmp_path / name / pictures.SHEET for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_models_random_states_data_and_working_folder_stay_as_they_were(
    models: dict[str, nn.Module],
    data_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = models["dense"]
    model.train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [(name, module.training) for name, module in model.named_modules()]
    flags = [p.requires_grad for p in model.parameters()]
    data = files_below(data_yaml.parent)
    python, numpy, pytorch = random.getstate(), np.random.get_state()[1], torch.get_rng_state()
    threads = torch.get_num_threads()

    draw(models, data_yaml, tmp_path / "out", images=2)

    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert [(name, module.training) for name, module in model.named_modules()] == modules
    assert [p.requires_grad for p in model.parameters()] == flags
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)
    assert torch.equal(torch.get_rng_state(), pytorch)
    assert torch.get_num_threads() == threads
    assert files_below(data_yaml.parent) == data
    assert not list((tmp_path / "here").iterdir())
    assert capfd.readouterr() == ("", "")


def test_images_are_spread_over_the_split_and_have_about_four_objects(data_yaml: Path) -> None:
    assert chosen(data_yaml, 1) == ["4.png"]
    assert chosen(data_yaml, 2) == ["2.png", "4.png"]
    assert chosen(data_yaml, 99) == [f"{number}.png" for number in range(IMAGES)]
    assert chosen(data_yaml, 2) == chosen(data_yaml, 2)


def test_of_a_large_split_a_seeded_sample_is_looked_at(
    data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "_CANDIDATES", 1)
    picks = {tuple(chosen(data_yaml, 1, seed=seed)) for seed in range(8)}
    assert len(picks) > 1
    assert chosen(data_yaml, 1, seed=3) == chosen(data_yaml, 1, seed=3)


def test_what_ultralytics_would_not_train_on_is_not_shown(data_yaml: Path) -> None:
    root = data_yaml.parent
    (root / "labels/val/4.txt").write_text("0 0.5 0.5\n")
    (root / "images/val/3.png").write_bytes(b"no image")
    (root / "labels/val/5.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    assert chosen(data_yaml, 1) == ["2.png"]


def test_lists_of_files_and_polygons_are_understood(data_yaml: Path) -> None:
    root = data_yaml.parent
    (root / "labels/val/5.txt").write_text("1 0.25 0.25 0.5 0.25 0.5 0.75\n")
    (root / "list.txt").write_text("./images/val/5.png\n")
    data_yaml.write_text(data_yaml.read_text().replace("val: images/val", "val: list.txt"))
    (example,) = choose_examples(data_set(data_yaml, "val"), "val", 4, 0)
    corners = [0.25 * SIDE, 0.25 * SIDE, 0.5 * SIDE, 0.75 * SIDE]
    assert example.boxes.tolist() == [[*corners, 1, 1]]


def test_images_without_labels_are_shown_where_there_are_no_others(data_yaml: Path) -> None:
    (example,) = choose_examples(data_set(data_yaml, "test"), "test", 4, 0)
    assert example.boxes.shape == (0, 6)


def test_the_sheet_stays_below_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    sheet = Image.fromarray(noise)
    large = len(pictures._compressed(sheet))
    monkeypatch.setattr(pictures, "_BYTES", large // 2)
    assert len(pictures._compressed(sheet)) <= large // 2


def test_the_report_finds_what_was_drawn(
    models: dict[str, nn.Module], data_yaml: Path, tmp_path: Path
) -> None:
    settings = {"imgsz": SIDE, "images": 2, "split": "train", "conf": 1e-4, "seed": 1}
    folder = tmp_path / "pictures"
    file = write_pictures(
        detection_pictures(models, data_yaml, folder, device="cpu", **settings), folder
    )
    assert file == tmp_path / "pictures" / "pictures.json"
    (listed,) = json.loads(file.read_text(encoding="utf-8"))
    assert set(files_below(file.parent)) == {file, file.parent / listed["file"]}
    (shown,), missing = read_pictures(tmp_path)
    assert not missing
    assert (shown.title, shown.caption) == (listed["title"], listed["caption"])
    (same,) = draw(models, data_yaml, tmp_path / "out", **settings)
    drawn = (tmp_path / "out" / same["file"]).read_bytes()
    assert (file.parent / listed["file"]).read_bytes() == drawn


def test_what_cannot_be_used_is_an_input_error(
    models: dict[str, nn.Module], data_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"no split 'holdout'; it has: train, val, test"):
        draw(models, data_yaml, out, split="holdout")
    with pytest.raises(InputError, match=r"there is no data set file .*nowhere"):
        draw(models, tmp_path / "nowhere.yaml", out)
    with pytest.raises(InputError, match="images is 0; a picture needs at least 1"):
        draw(models, data_yaml, out, images=0)
    (data_yaml.parent / "images/test/0.png").unlink()
    with pytest.raises(InputError, match=r"split 'test' of .* has no image that can be read"):
        draw(models, data_yaml, out, split="test")
    data_yaml.write_text("train: a\nval: b\n")
    with pytest.raises(InputError, match="cannot be used as a data set"):
        draw(models, data_yaml, out)
    assert not out.exists()
