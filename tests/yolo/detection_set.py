"""A small good data set that tests spoil."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from detprune.errors import InputError
from detprune_yolo.data.check import check_data

_BUFFER = io.BytesIO()
Image.new("RGB", (16, 16)).save(_BUFFER, "PNG")
_PICTURE = _BUFFER.getvalue()
GOOD = "0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.1 0.1\n"


class DataSet:
    """A data set of small images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys: dict[str, Any] = {
            "path": str(root),
            "train": "images/train",
            "val": "images/val",
            "names": {0: "cat", 1: "dog"},
        }
        for split in ("train", "val"):
            for number in range(3):
                self.image(f"images/{split}/{split}{number}.jpg")
                self.label(f"{split}/{split}{number}.txt", GOOD)

    def image(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_PICTURE)  # a PNG, whatever its name says
        return path

    def label(self, name: str, text: str) -> None:
        path = self.root / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @property
    def yaml(self) -> Path:
        path = self.root / "data.yaml"
        path.write_text(yaml.safe_dump(self.keys), encoding="utf-8")
        return path

    def refused(self, nc: int | None = None) -> str:
        with pytest.raises(InputError) as caught:
            check_data(self.yaml, nc=nc)
        return str(caught.value)
