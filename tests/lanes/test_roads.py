"""Drawn roads as a set: TuSimple's format, the same everywhere, never half a set."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from lane_files import label, straight, write_lines
from typer.testing import CliRunner

from detprune.errors import InputError
from detprune_lanes.data.command import draw_roads
from detprune_lanes.data.labels import read_labels
from detprune_lanes.data.roads import drawn
from detprune_lanes.data.roads.drawn import LABELS, DrawnRoads, cached, draw
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

SPEC = DrawnRoads(train=4, test=2, seed=3)


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(SPEC, tmp_path_factory.mktemp("drawn") / "set")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: found for name, found in contents(folder).items() if name.endswith(".jpg")}


def lines(folder: Path, split: str) -> list[str]:
    return (folder / LABELS[split]).read_text().splitlines()


def test_the_layout_is_tusimples(roads: Path) -> None:
    assert sorted(path.name for path in roads.iterdir()) == [
        "clips",
        "label_data_drawn.json",
        "set.json",
        "test_label.json",
    ]
    for split, count in SPEC.splits.items():
        labels = [json.loads(line) for line in lines(roads, split)]
        assert [found["raw_file"] for found in labels] == [
            f"clips/{split}/{number:06d}/20.jpg" for number in range(1, count + 1)
        ]
        for found in labels:
            assert set(found) == {"raw_file", "lanes", "h_samples"}
            assert found["h_samples"] == list(range(160, 711, 10))
            assert all(len(lane) == 56 for lane in found["lanes"])
            assert all(type(x) is int and x >= -2 for lane in found["lanes"] for x in lane)
            image = cv2.imread(str(roads / found["raw_file"]))
            assert image.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert len(pictures(roads)) == 6


def test_the_reader_of_tusimples_files_reads_them(roads: Path) -> None:
    frames = read_labels([roads / name for name in LABELS.values()], roads)
    assert len(frames) == 6
    for frame in frames:
        np.testing.assert_array_equal(frame.rows, np.arange(160, 711, 10))
        assert 1 <= len(frame.lanes) <= 5


def test_the_same_spec_draws_the_same_bytes(roads: Path, tmp_path: Path) -> None:
    assert contents(draw(SPEC, tmp_path / "again")) == contents(roads)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_another_seed_and_split_draw_other_frames(roads: Path, tmp_path: Path) -> None:
    other = pictures(draw(replace(SPEC, seed=4), tmp_path / "other"))
    first = pictures(roads)
    assert len({*first.values(), *other.values()}) == 12
    assert set(lines(roads, "train")).isdisjoint(lines(tmp_path / "other", "train"))


def test_a_larger_set_begins_with_the_smaller_one(roads: Path, tmp_path: Path) -> None:
    larger = draw(replace(SPEC, train=5, test=3), tmp_path / "larger")
    assert pictures(roads).items() <= pictures(larger).items()
    for split, count in SPEC.splits.items():
        assert lines(larger, split)[:count] == lines(roads, split)


@pytest.mark.usefixtures("unpainted")
def test_a_set_may_have_no_test_frames(tmp_path: Path) -> None:
    folder = draw(DrawnRoads(train=1, test=0), tmp_path / "set")
    assert not (folder / "test_label.json").exists()
    assert [path.name for path in (folder / "clips").iterdir()] == ["train"]


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Black frames, for tests of labels alone."""
    black = np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    monkeypatch.setattr(drawn, "draw_scene", lambda *_: black)


def geometries(folder: Path, name: str, bottoms: range) -> Path:
    """A label file with one frame for each x at which its left lane ends."""
    labels = [
        label(f"clips/{name}/{x}/20.jpg", lanes=[straight(x).tolist(), straight(1100).tolist()])
        for x in bottoms
    ]
    return write_lines(folder / name, labels)


def bottoms(folder: Path, split: str) -> list[int]:
    """Which of `geometries` were drawn, by the left lane's x in the last row."""
    return [json.loads(line)["lanes"][0][-1] for line in lines(folder, split)]


def ends(values: range) -> set[int]:
    return {int(straight(x)[-1]) for x in values}


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    geometries(folder, "label_data_0313.json", range(100, 160, 10))
    geometries(folder, "label_data_0531.json", range(200, 240, 10))
    geometries(folder, "test_label.json", range(300, 350, 10))
    return folder


@pytest.mark.usefixtures("unpainted")
def test_each_split_takes_the_lanes_of_its_own_files(real: Path, tmp_path: Path) -> None:
    folder = draw(DrawnRoads(train=8, test=4, labels=real), tmp_path / "set")
    train, test = bottoms(folder, "train"), bottoms(folder, "test")
    assert set(train) <= ends(range(100, 160, 10)) | ends(range(200, 240, 10))
    assert len(set(train)) == 8  # none twice, as long as there are enough
    assert train != sorted(train)
    assert set(test) <= ends(range(300, 350, 10))
    assert len(set(test)) == 4


def test_lanes_are_drawn_again_in_another_look_when_there_are_too_few(
    real: Path, tmp_path: Path
) -> None:
    folder = draw(DrawnRoads(train=1, test=6, labels=real), tmp_path / "set")
    test = bottoms(folder, "test")
    assert set(test[:5]) == ends(range(300, 350, 10))
    assert test[5:] == test[:1]
    assert len(set(pictures(folder).values())) == 7


@pytest.mark.usefixtures("unpainted")
def test_a_single_file_gives_its_splits_different_lanes(tmp_path: Path) -> None:
    file = geometries(tmp_path, "some.json", range(100, 180, 10))
    folder = draw(DrawnRoads(train=4, test=4, labels=file), tmp_path / "set")
    assert set(bottoms(folder, "train")) == ends(range(100, 180, 20))
    assert set(bottoms(folder, "test")) == ends(range(110, 180, 20))


@pytest.mark.usefixtures("unpainted")
def test_the_real_rows_and_empty_lanes_are_kept(tmp_path: Path) -> None:
    rows = list(range(240, 711, 10))
    lanes = [straight(200)[8:].tolist(), [-2.0] * 48]
    file = write_lines(tmp_path / "some.json", [label(lanes=lanes, h_samples=rows)])
    folder = draw(DrawnRoads(train=1, test=0, labels=file), tmp_path / "set")
    found = json.loads(lines(folder, "train")[0])
    assert found["h_samples"] == rows
    assert found["lanes"] == lanes
    assert {type(x) for lane in found["lanes"] for x in lane} == {int}


@pytest.mark.usefixtures("unpainted")
def test_the_content_of_label_files_is_part_of_the_identity(real: Path, tmp_path: Path) -> None:
    spec = DrawnRoads(train=1, test=1, labels=real)
    folder = draw(spec, tmp_path / "set")
    moved = real.rename(tmp_path / "moved")
    assert draw(replace(spec, labels=moved), folder) == folder
    with pytest.raises(
        InputError, match=r"another drawn data set .*'labels': '.*not .*'labels': None"
    ):
        draw(replace(spec, labels=None), folder)
    geometries(moved, "test_label.json", range(300, 320, 10))
    with pytest.raises(InputError, match="holds another drawn data set"):
        draw(replace(spec, labels=moved), folder)


@pytest.mark.usefixtures("unpainted")
def test_label_files_that_are_not_there(tmp_path: Path) -> None:
    geometries(tmp_path, "label_data_0313.json", range(100, 120, 10))
    with pytest.raises(InputError, match=r"holds no test_label\.json.*the test frames"):
        draw(DrawnRoads(train=1, test=1, labels=tmp_path), tmp_path / "set")
    with pytest.raises(
        InputError, match=r"nowhere holds no label_data_\*\.json.*single label file"
    ):
        draw(DrawnRoads(train=1, test=1, labels=tmp_path / "nowhere"), tmp_path / "set")
    broken = write_lines(tmp_path / "broken.json", ["no json"])
    with pytest.raises(InputError, match="no JSON object"):
        draw(DrawnRoads(train=1, test=0, labels=broken), tmp_path / "set")
    short = geometries(tmp_path, "short.json", range(100, 110, 10))
    with pytest.raises(InputError, match=r"short\.json holds no label for the test frames"):
        draw(DrawnRoads(train=1, test=1, labels=short), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_complete_set_is_reused(roads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(drawn, "draw_scene", never)
    assert draw(SPEC, roads) == roads


def test_a_kill_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def killed(*_: object) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        assert not (tmp_path / "set").exists()
        return np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)

    monkeypatch.setattr(drawn, "draw_scene", killed)
    with pytest.raises(KeyboardInterrupt):
        draw(replace(SPEC, train=12), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_other_content_is_left_alone(roads: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds another drawn data set .*'seed': 3.*'seed': 5.*remove it"
    ):
        draw(replace(SPEC, seed=5), roads)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    with pytest.raises(
        InputError, match="photos holds something that is not drawn roads; remove it"
    ):
        draw(SPEC, tmp_path / "photos")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file holds something"):
        draw(SPEC, tmp_path / "file")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("unpainted")
def test_a_set_with_files_missing_is_not_reused(tmp_path: Path) -> None:
    spec = DrawnRoads(train=2, test=0)
    (tmp_path / "set").mkdir()  # an empty folder is filled
    folder = draw(spec, tmp_path / "set")
    (folder / "clips" / "train" / "000001" / "20.jpg").unlink()
    with pytest.raises(InputError, match=r"holds 1 frames of 2 in clips/train.*remove it"):
        draw(spec, folder)


@pytest.mark.usefixtures("unpainted")
def test_the_cache_folder_names_the_set(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = DrawnRoads(train=1, test=0)
    folders = [cached(small), cached(replace(small, seed=1)), cached(replace(small, labels=real))]
    assert len(set(folders)) == 3
    assert {folder.parent for folder in folders} == {tmp_path / "detprune" / "drawn"}
    assert cached(small) == folders[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 0}, "train of drawn roads is 0; choose a whole number from 1 to 1000000"),
        ({"test": -1}, "test of drawn roads is -1"),
        ({"train": 1.5}, "train of drawn roads is 1.5"),
        ({"seed": 2**32}, "seed of drawn roads is 4294967296; choose a whole number from 0"),
    ],
)
def test_values_out_of_range(values: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DrawnRoads(**values)


@pytest.mark.usefixtures("unpainted")
def test_the_command_prints_the_folder(real: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(draw_roads)
    out = tmp_path / "set"
    arguments = [str(out), "--train", "1", "--test", "1", "--seed", "7", "--labels", str(real)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == out
    stored = json.loads((out / "set.json").read_text())
    assert {key: stored[key] for key in ("format", "train", "test", "seed")} == {
        "format": 1,
        "train": 1,
        "test": 1,
        "seed": 7,
    }
