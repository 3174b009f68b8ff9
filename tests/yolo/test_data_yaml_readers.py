"""Every reader of a data yaml names the line of what is wrong in it, before Ultralytics reads it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_detector import tiny_detector

from detprune.errors import InputError
from detprune_yolo.data.examples import data_set
from detprune_yolo.measure.calibration import TrainingImages
from detprune_yolo.measure.validation import validate

READERS: dict[str, Callable[[Path], object]] = {
    "examples": lambda file: data_set(file, "val"),
    "calibration": lambda file: TrainingImages(file, count=1, imgsz=64, batch=1),
    "validation": lambda file: validate(tiny_detector(), file, imgsz=64),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", ["a: 1\ntrain: [", "val: a\nval: b", "a: 1\nb: " + "[" * 3000])
def test_a_damaged_data_yaml(tmp_path: Path, reader: str, text: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"data\.yaml, line 2, column \d+ is not valid YAML"):
        READERS[reader](file)
