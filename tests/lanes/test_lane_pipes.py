"""Pipes in place of lane files: read, they would be waited for."""

import os
from pathlib import Path

import pytest
from lane_files import label, write_lines

from detprune.errors import InputError
from detprune_lanes.data.labels import read_labels
from detprune_lanes.measure.submission import read_ground_truth, read_submission


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path / "pipe.json"


def test_labels(pipe: Path) -> None:
    good = write_lines(pipe.with_name("good.json"), [label()])
    with pytest.raises(InputError, match=r"cannot be read \(1\): .*pipe.json: it is a named pipe"):
        read_labels([good, pipe], pipe.parent, check_images=False)


def test_submission_and_ground_truth(pipe: Path) -> None:
    for read in (read_submission, read_ground_truth):
        with pytest.raises(InputError, match=r"cannot be loaded: .*pipe.json: it is a named pipe"):
            read(pipe)


def test_an_image(pipe: Path) -> None:
    labels = write_lines(pipe.with_name("labels.json"), [label(pipe.name)])
    with pytest.raises(InputError, match=r"images that do not exist \(1\): labels.json:1 `pipe"):
        read_labels([labels], pipe.parent)
