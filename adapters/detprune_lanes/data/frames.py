"""Frames with their targets as a torch data set, and the cache file of decoded frames."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.loggers import logger
from detprune_lanes.data.augment import Augmentation, vary
from detprune_lanes.data.labels import Frame
from detprune_lanes.data.slots import slot_points
from detprune_lanes.data.targets import lane_targets, rasterise
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH, Grid

LOGGER = logger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FORMAT = 1  # raise it with every change in how frames are decoded, resized or stored
_SHOWN = 3  # most problems that an error names


class LaneFrames(Dataset[tuple[Tensor, ...]]):
    """Frames for training or measuring a lane network.

    An item is an image, float32 (3, H, W), RGB, normalised with ImageNet's mean and deviation, and its
    target, int64 (rows, lanes), with ``grid.cells`` for no lane; with ``segmentation`` also the
    target of the auxiliary branch, int64 (H/8, W/8), 0 for the background or 1 + the slot.

    Images are resized as in the original (Pillow's bilinear filter; torch's differs from it by one grey
    level at most). With an augmentation they are first resized to W x 9/16 W, the frame's own
    proportions, varied, and then resized to H x W, where the original varies them at 1280x720; the
    variation is drawn from torch's global generator.

    Attributes:
        frames: as given.
        grid: as given.
        size: as given.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        grid: Grid,
        size: tuple[int, int] = (288, 800),
        *,
        augment: Augmentation | None = None,
        segmentation: bool = False,
        cache: Path | None = None,
    ) -> None:
        """Prepare the frames.

        Args:
            frames: the result of `read_labels`.
            grid: rows and cells of the target.
            size: height H and width W of the network's input, in pixels.
            augment: the augmentation of the images.
            segmentation: whether items have the auxiliary branch's target.
            cache: folder of files with decoded images: one is written now, or found there; without it,
                images are decoded again at every access.

        Raises:
            InputError: there are no frames, or an image cannot be decoded or is not 1280x720 (without
                ``cache``: when it is accessed), or the folder cannot hold the file.
        """
        if not frames:
            raise InputError("there are no frames: the label files hold no label; give others")
        self.frames, self.grid, self.size = list(frames), grid, size
        self._transform = None if augment is None else augment.transform()
        self._segmentation = segmentation
        width = size[1]
        self._stored_size = (round(width * FRAME_HEIGHT / FRAME_WIDTH), width) if augment else size
        self._store = None if cache is None else _stored(self.frames, self._stored_size, cache)
        self._pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # pickling a memory map would copy all its pixels

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        frame = self.frames[number]
        image = self._image(number)
        points = slot_points(frame.lanes, frame.rows)
        if self._transform is not None:
            image, points = vary(self._transform, image, points, int(torch.randint(2**31, ())))
        target = torch.from_numpy(lane_targets(points, self.grid))
        item = (_normalised(_resized(image, self.size)), target)
        if not self._segmentation:
            return item
        return (*item, torch.from_numpy(rasterise(points, self.size)).long())

    def _image(self, number: int) -> NDArray[np.uint8]:
        """The frame's image at the size at which it is stored, (h, w, 3), RGB."""
        if self._store is None:
            return _resized(_decoded(self.frames[number]), self._stored_size)
        if self._pixels is None:
            self._pixels = np.load(self._store, mmap_mode="r")
        return np.array(self._pixels[number])


def _decoded(frame: Frame) -> NDArray[np.uint8]:
    """The frame's image, (720, 1280, 3), RGB."""
    where = f"{frame.image} ({frame.place})"
    try:
        data = frame.image.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the image {where}: {error.strerror}") from error
    # imdecode fails on a JPEG that was cut off; imread would fill the rest with grey.
    coded = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(coded, cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise InputError(
            f"cannot decode the image {where}; unpack it again, or leave its label out"
        )
    height, width = image.shape[:2]
    if (height, width) != (FRAME_HEIGHT, FRAME_WIDTH):
        raise InputError(
            f"the image {where} is {width}x{height}; labels are in pixels of "
            f"{FRAME_WIDTH}x{FRAME_HEIGHT}, so images must have that size"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image, (h, w, 3), at another size."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    result: NDArray[np.uint8] = resized[0].permute(1, 2, 0).numpy()
    return result


def _normalised(image: NDArray[np.uint8]) -> Tensor:
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    return planes.float().div_(255).sub_(mean).div_(deviation)


def _is_whole(store: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of decoded frames is there and holds what its name says; a warning if it holds something else."""
    if not store.exists():
        return False
    try:
        found = np.load(store, mmap_mode="r", allow_pickle=False) if store.is_file() else None
    except (OSError, ValueError, EOFError, SyntaxError):  # cut off, empty, or no array of numbers
        found = None
    if isinstance(found, np.ndarray) and (found.dtype, found.shape) == (np.uint8, shape):
        return True
    LOGGER.warning(
        "%s does not hold the decoded frames that it is named after; they are decoded anew", store
    )
    return False


def _stored(frames: Sequence[Frame], size: tuple[int, int], folder: Path) -> Path:
    """The file with all decoded frames, uint8 (n, h, w, 3); it is written if it does not exist.

    Its name tells frames, sizes and image files apart, and it appears under it only when complete. A file that holds
    something else, because it was damaged or exchanged, is written anew.
    """
    identity = hashlib.sha256()
    for frame in frames:
        try:
            status = frame.image.stat()
        except OSError as error:
            raise InputError(
                f"cannot read the image {frame.image} ({frame.place}): {error.strerror}"
            ) from error
        identity.update(f"{frame.raw_file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    shape = (len(frames), *size, 3)
    name = f"frames-{_FORMAT}-{'x'.join(map(str, shape[:3]))}-{identity.hexdigest()[:24]}.npy"
    store = folder.expanduser().resolve() / name
    if _is_whole(store, shape):
        return store
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        needed, free = int(np.prod(shape)), shutil.disk_usage(store.parent).free
        if needed > free:
            raise InputError(
                f"decoded frames need {needed / 1e9:.1f} GB in {store.parent}, of which "
                f"{free / 1e9:.1f} GB are free; make room, use fewer frames or a smaller input, or "
                "switch the cache off (data.cache: false)"
            )
        # Written rather than mapped: a full disk then raises an error, and does not kill by a signal.
        with atomic(store) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            problems = []
            for frame in frames:
                try:
                    file.write(np.ascontiguousarray(_resized(_decoded(frame), size)).data)
                except InputError as problem:
                    problems.append(str(problem))
            if problems:
                counted = f"{len(problems)} of {len(frames)} images cannot be used; the first are:"
                raise InputError("\n- ".join([counted, *problems[:_SHOWN]]))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write decoded frames into {store.parent}: {error.strerror}; "
            "set the variable XDG_CACHE_HOME to a folder that can be written, or switch the cache off "
            "(data.cache: false)"
        ) from error
    return store
