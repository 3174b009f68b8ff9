"""Label files and frames for the tests of lane data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detprune_lanes.data.labels import Frame

ROWS = np.arange(160.0, 711, 10)


def straight(bottom: float, top: float = 640, first: float = 240) -> NDArray[np.float64]:
    """x of a straight lane from (top, first) to (bottom, 720); -2 above and beside the image."""
    x = np.round(top + (bottom - top) * (ROWS - first) / (720 - first))
    return np.where((first <= ROWS) & (x >= 0) & (x <= 1279), x, -2.0)


def label(raw_file: str = "clips/a/20.jpg", **changes: Any) -> dict[str, Any]:
    """A label with two lanes."""
    lanes = [straight(200).astype(int).tolist(), straight(1100).astype(int).tolist()]
    return {
        "raw_file": raw_file,
        "lanes": lanes,
        "h_samples": ROWS.astype(int).tolist(),
    } | changes


def write_lines(file: Path, labels: Sequence[Any]) -> Path:
    """A label file; what is no string is written as JSON."""
    lines = [line if isinstance(line, str) else json.dumps(line) for line in labels]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def write_image(file: Path, image: NDArray[np.uint8]) -> Path:
    """An RGB image, (h, w, 3), without loss if it is a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return file


def blotches(seed: int, size: tuple[int, int] = (720, 1280)) -> NDArray[np.uint8]:
    """An image of coarse and fine structure."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (9, 16, 3)).astype(np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int64)
    return np.clip(image + rng.integers(0, 56, (*size, 3)), 0, 255).astype(np.uint8)


def frame(image: Path, lanes: Sequence[NDArray[np.float64]], line: int = 1) -> Frame:
    """A frame with labels in all 56 rows."""
    return Frame(f"clips/{image.name}", image, ROWS, tuple(lanes), f"labels.json:{line}")
