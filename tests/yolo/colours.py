"""Pictures of pure colours, and a detector that finds them exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from detprune_yolo.measure.coco import from_labels

NAMES = {0: "red", 1: "green", 2: "blue"}


class ColourFinder(nn.Module):
    """Predicts one box per class: what is coloured purely; blind to some, imprecise if asked."""

    def __init__(
        self, names: dict[int, str] = NAMES, blind: tuple[int, ...] = (), shift: float = 0.0
    ) -> None:
        super().__init__()
        self.names = names
        self.blind = blind
        self.shift = shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        found = torch.zeros(len(images), 4 + len(self.names), 8)
        for number, image in enumerate(images):
            for label in set(range(3)) - set(self.blind):
                others = [channel for channel in range(3) if channel != label]
                y, x = torch.where((image[label] > 0.8) & (image[others].amax(0) < 0.2))
                if len(x):
                    left, right, top, bottom = x.min(), x.max() + 1, y.min(), y.max() + 1
                    left = left + self.shift * number
                    found[number, :4, label] = torch.stack(
                        [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
                    )
                    found[number, 4 + label, label] = 0.9 - 0.1 * label - top / 1000 - left / 10000
        return found


def draw(folder: Path, file_names: list[str]) -> Path:
    """Pictures of different shapes with up to three pure rectangles, their labels and the YAML."""
    generator = np.random.default_rng(3)
    for number, name in enumerate(file_names):
        width, height = ((64, 64), (64, 40), (40, 64))[number % 3]
        pixels: NDArray[np.uint8] = np.full((height, width, 3), 60, np.uint8)
        lines = []
        for label in range(3 - number % 2):
            # thirds of the picture, so that none covers another
            x, y = label * width // 3 + 1, int(generator.integers(0, height // 2))
            w, h = int(generator.integers(8, width // 3)), int(generator.integers(8, height // 2))
            pixels[y : y + h, x : x + w] = 255 * np.eye(3, dtype=np.uint8)[label]
            box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            lines.append(" ".join(map(repr, [label, *box])))
        image = folder / "images" / name
        labels = (folder / "labels" / name).with_suffix(".txt")
        image.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        labels.write_text("\n".join(lines))
    data = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


def coco_file(path: Path, data_yaml: Path, **changes: Any) -> Path:
    """The labels as a COCO file, with other ids, one more category and one more image."""
    images, rows = [], []
    for file in sorted((data_yaml.parent / "images").iterdir()):
        with Image.open(file) as image:
            images.append((file.name, *image.size))
        label = data_yaml.parent / "labels" / f"{file.stem}.txt"
        rows.append(np.loadtxt(label, ndmin=2))
    truth = from_labels(images, rows, NAMES)
    for image in truth["images"]:
        image["id"] += 7
    for annotation in truth["annotations"]:
        annotation["image_id"] += 7
        annotation["category_id"] = 50 - annotation["category_id"]
    for category in truth["categories"]:
        category["id"] = 50 - category["id"]
    truth["categories"].insert(0, {"id": 3, "name": "other"})
    truth["images"].append({"id": 1, "file_name": "train/other.png", "width": 9, "height": 9})
    truth["annotations"].append(
        {"id": 99, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    )
    path.write_text(json.dumps({**truth, **changes}))
    return path
