"""A folder of drawn roads in TuSimple's own format: label files, and images at their ``raw_file``.

It needs no download. Each frame has a random generator of its own, seeded by (seed, split, index), so
frame k of a split does not depend on how many the set has. Its lanes are random, or those of real
label files; the training and the test frames are drawn in two different styles. Labels are the same
on every machine; pixels are where OpenCV and NumPy are of the same version and processor family.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detprune.errors import InputError
from detprune.files import read_bytes
from detprune.files.folders import SET, complete_folder, output_folder, user_cache
from detprune_lanes.data.labels import Frame, read_labels
from detprune_lanes.data.roads.geometry import random_lanes
from detprune_lanes.data.roads.scene import draw_scene
from detprune_lanes.grid import ABSENT, FRAME_WIDTH

LABELS = {"train": "label_data_drawn.json", "test": "test_label.json"}
"""The label file of each split, as TuSimple names them."""

_FORMAT = 1  # raise it with every change in what is drawn or how it is stored
_QUALITY = 90  # of JPEG
_ORDER = 2**31  # an index beyond all frames: the generator that shuffles the real geometries
_WORKERS = 8  # threads at most: a frame needs some 30 MB while it is drawn


@dataclass(frozen=True)
class DrawnRoads:
    """Settings of drawn roads: numbers of frames, seed, and source of the lanes.

    Attributes:
        train: number of training frames.
        test: number of test frames.
        seed: another seed draws other frames.
        labels: TuSimple's label files, whose lanes are drawn instead of random ones. From a folder,
            training frames take the lanes of ``label_data_*.json`` and test frames those of
            ``test_label.json``; from a single file, they take every other line each. The seed shuffles
            the labels; with more frames than labels, a label is drawn again with another look.

    Raises:
        InputError: a value out of range.
    """

    train: int = 600
    test: int = 200
    seed: int = 0
    labels: Path | None = None

    def __post_init__(self) -> None:
        limits = {"train": (1, 10**6), "test": (0, 10**6), "seed": (0, 2**32 - 1)}
        for name, (low, high) in limits.items():
            value: Any = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(
                    f"{name} of drawn roads is {value!r}; choose a whole number from {low} to {high}"
                )

    @property
    def splits(self) -> dict[str, int]:
        """Splits that have frames → number of frames."""
        counts = {"train": self.train, "test": self.test}
        return {split: count for split, count in counts.items() if count}


@dataclass(frozen=True)
class _Source:
    """Label files from which a split takes its lanes: from line ``first`` on, every ``step``-th."""

    files: tuple[Path, ...]
    first: int
    step: int

    def frames(self, split: str) -> list[Frame]:
        every = read_labels(self.files, self.files[0].parent, check_images=False)
        chosen = every[self.first :: self.step]
        if not chosen:
            raise InputError(
                f"{self.files[0]} holds no label for the {split} frames: of a single file they take "
                f"every {self.step}. line; add labels, or draw no {split} frames"
            )
        return chosen

    def key(self) -> str:
        digests = [hashlib.sha256(read_bytes(file)).hexdigest() for file in self.files]
        return f"{self.first}/{self.step}:{','.join(digests)}"


def cached(spec: DrawnRoads) -> Path:
    """Draw a set into the user's cache folder, or reuse it there; return the set's folder."""
    lanes = _identity(spec)["labels"]
    name = f"roads-{_FORMAT}-{spec.train}-{spec.test}-seed{spec.seed}"
    return draw(spec, user_cache() / "drawn" / (f"{name}-{lanes[:12]}" if lanes else name))


def draw(spec: DrawnRoads, folder: Path) -> Path:
    """Write the set into ``folder``, or reuse it there; return the folder's absolute path.

    Layout: ``label_data_drawn.json`` and ``test_label.json`` (one label per line), ``set.json``, and
    ``clips/<split>/<number>/20.jpg`` (1280x720). The folder appears under its name only when it is
    complete.

    Raises:
        InputError: ``folder`` holds anything else, or such a set with files missing; or the label
            files that the lanes come from cannot be used.
    """
    folder = output_folder(folder)
    identity = _identity(spec)

    def write(new: Path) -> None:
        for split, count in spec.splits.items():
            _write(spec, split, count, new)
        (new / SET).write_text(json.dumps(identity), encoding="utf-8")

    complete_folder(folder, lambda: _reusable(spec, identity, folder), write)
    return folder


def _write(spec: DrawnRoads, split: str, count: int, folder: Path) -> None:
    number = list(LABELS).index(split)
    source = _sources(spec).get(split)
    real = source.frames(split) if source else []
    order = np.random.default_rng([spec.seed, number, _ORDER]).permutation(len(real))

    def write_frame(index: int) -> str:
        rng = np.random.default_rng([spec.seed, number, index])
        rows, lanes = _geometry(real[order[index % len(real)]]) if real else random_lanes(rng)
        image = draw_scene(rng, lanes, rows, split)
        raw_file = f"clips/{split}/{index + 1:06d}/20.jpg"
        file = folder / raw_file
        file.parent.mkdir(parents=True)
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        file.write_bytes(code.tobytes())
        label = {"lanes": lanes.tolist(), "h_samples": rows.tolist(), "raw_file": raw_file}
        return json.dumps(label) + "\n"

    with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        lines = list(pool.map(write_frame, range(count)))
    (folder / LABELS[split]).write_text("".join(lines), encoding="utf-8")


def _geometry(frame: Frame) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows, (R,), and lanes, (L, R), of a label, in whole pixels."""
    lanes = np.rint(np.array(frame.lanes).reshape(-1, len(frame.rows))).astype(np.int64)
    lanes = np.where(lanes < 0, ABSENT, np.minimum(lanes, FRAME_WIDTH - 1))
    whole = (frame.rows % 1 == 0).all()
    return frame.rows.astype(np.int64) if whole else frame.rows, lanes


def _sources(spec: DrawnRoads) -> dict[str, _Source]:
    """The label files that each split's lanes come from; empty for random lanes.

    Raises:
        InputError: the label files are not there.
    """
    if spec.labels is None:
        return {}
    place = spec.labels.expanduser().resolve()
    if place.is_file():
        return {split: _Source((place,), k, 2) for k, split in enumerate(spec.splits)}
    sources = {}
    for split, pattern in (("train", "label_data_*.json"), ("test", LABELS["test"])):
        if split not in spec.splits:
            continue
        files = tuple(sorted(place.glob(pattern)))
        if not files:
            raise InputError(
                f"{place} holds no {pattern}, the source of the lanes of the {split} frames; "
                "name a folder with TuSimple's label files, or a single label file"
            )
        sources[split] = _Source(files, 0, 1)
    return sources


def _identity(spec: DrawnRoads) -> dict[str, Any]:
    """The facts by which two sets are the same; label files count by content, not by path."""
    sources = _sources(spec)
    keys = "".join(f"{split} {source.key()}\n" for split, source in sources.items())
    return {
        "format": _FORMAT,
        "train": spec.train,
        "test": spec.test,
        "seed": spec.seed,
        "labels": hashlib.sha256(keys.encode()).hexdigest() if sources else None,
    }


def _reusable(spec: DrawnRoads, identity: dict[str, Any], folder: Path) -> bool:
    """Whether the folder holds this set already; False if the folder is new or empty."""
    way_out = "remove it, or name another folder"
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / SET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if not folder.exists():
            return False
        raise InputError(f"{folder} holds something that is not drawn roads; {way_out}") from None
    if found != identity:
        raise InputError(
            f"{folder} holds another drawn data set ({found}), not {identity}; {way_out}"
        )
    for split, count in spec.splits.items():
        left = sum(1 for _ in (folder / "clips" / split).glob("*/20.jpg"))
        if left != count or not (folder / LABELS[split]).is_file():
            raise InputError(
                f"{folder} holds {left} frames of {count} in clips/{split}, or lacks {LABELS[split]}; "
                f"{way_out}"
            )
    return True
