# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' data sets, changed so that they trust no cache file and change no file of the user.

Ultralytics unpickles ``labels/*.cache``, so that a data set could run code; it overwrites that file, reads
``*.npy`` beside images in their place, deletes those that it cannot read, and rewrites JPEG files whose end
is missing. Labels are scanned into a folder of this process instead, and image files stay as they are.
"""

import atexit
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from ultralytics.data import utils
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.rtdetr.val import RTDETRDataset
from ultralytics.utils import NUM_THREADS
from ultralytics.utils.patches import imread

from detprune.errors import InputError, listed
from detprune.files.folders import made_by_a_system
from detprune_yolo.data.label_lines import in_other_case, not_numbers
from detprune_yolo.data.problem_kinds import DEAD_LINK, NOT_A_FILE, OF_A_SYSTEM, OTHER_CASE

LABELS = "DETPRUNE_YOLO_LABELS"
"""Environment variable with the folder of scanned labels; the processes of one training share the folder."""

_LEFT_OUT = ": ignoring corrupt "
"""Text after the image's path in Ultralytics' message of an image that it leaves out."""

_NO_NUMBER = "could not convert string to float"  # NumPy's words, after which it quotes the string

_LEVELS = 2  # mean difference of pixels up to which arrays are the same image: JPEG decoders differ by less

_REPAIRED, _AS_IT_IS = "corrupt JPEG restored and saved", "JPEG without its end, read as it is"


class DetectionImages(YOLODataset):  # type: ignore[misc]
    """``YOLODataset`` with caches of its own, which changes no file of the user.

    Raises:
        InputError: an image that is no regular file, is without labels, cannot be decoded, or has an
            array beside it that ``cache="disk"`` would overwrite.
    """

    left_out: Sequence[str] = ()
    """Images that Ultralytics leaves out, each with its reason."""

    def get_img_files(self, img_path: Any) -> list[str]:
        """Ultralytics' list of images; a pipe is refused first, because Ultralytics would wait for it for ever."""
        places = img_path if isinstance(img_path, list) else [img_path]
        given = []
        for place in map(Path, places):
            found = image_files(place)
            if place.is_dir():
                refuse_system_files(found, place)
            given += found
        refuse_odd_files(given, utils.img2label_paths(given))
        files: list[str] = super().get_img_files(img_path)
        return files

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        own = labels_folder() / cache_hash / cache_path.name
        own.parent.mkdir(exist_ok=True)
        found: tuple[dict[str, Any], bool] = super()._load_or_scan_cache(own, cache_hash)
        said = [text.removeprefix(self.prefix) for text in found[0].get("msgs", [])]
        self.left_out = [text for text in said if _LEFT_OUT in text]
        return found

    def cache_labels(self, path: Path = Path("./labels.cache")) -> dict[str, Any]:
        """Scan images and labels; ``path`` is where the result is kept."""
        try:
            with no_repairs():
                scanned: dict[str, Any] = super().cache_labels(path)
        except ValueError as error:
            raise InputError(
                f"there are no labels for the images of {self.img_path}: expected {self.label_files[0]}"
            ) from error
        return scanned

    def result_to_label(self, result: Any) -> tuple[Any, ...]:
        """A label and its counters; the message tells that a JPEG without an end was read, not repaired.

        It quotes no text of a label, which may be a link to a file of another kind.
        """
        *values, message = super().result_to_label(result)
        start, quoted, _ = message.partition(f"{_LEFT_OUT}image/label: {_NO_NUMBER}")
        if quoted:
            label = utils.img2label_paths([start.removeprefix(self.prefix)])[0]
            message = (
                f"{start}{_LEFT_OUT}image/label: {label}:{not_numbers(label)} is no row of numbers"
            )
        return (*values, message.replace(_REPAIRED, _AS_IT_IS))

    def verify_labels(self, labels: list[dict[str, Any]], cache_path: Path) -> None:
        """Ultralytics' check that all labels are of the task, in our words.

        Raises:
            InputError: labels of another task.
        """
        try:
            super().verify_labels(labels, cache_path)
        except ValueError as error:
            what = "rotated boxes (class x1 y1 … x4 y4)" if self.use_obb else "polygons"
            raise InputError(
                f"the labels of {self.img_path} are boxes (class cx cy w h), at least some, but the network learns "
                f"from {what}; give a data set of its task, or a network for detection"
            ) from error

    def get_labels(self) -> list[dict[str, Any]]:
        """The labels of all images.

        Raises:
            InputError: not one image has labels in the form of the task.
        """
        try:
            labels: list[dict[str, Any]] = super().get_labels()
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise InputError(
                f"no image of {self.img_path} can be used with its labels: {lines[min(1, len(lines) - 1)]}; give a "
                "data set of the network's task"
            ) from error
        return labels

    def check_cache_disk(self, safety_margin: float = 0.1) -> bool:
        """Whether there is room for ``cache="disk"``; it is refused where it would overwrite files of the user."""
        sizes = [label.get("shape") for label in self.labels]
        there = [i for i, array in enumerate(self._beside) if array.exists()]
        with ThreadPool(NUM_THREADS) as pool:
            good = pool.map(lambda i: self._is_copy(i, sizes[i]), there)
        other = [str(self._beside[i]) for i, fits in zip(there, good, strict=True) if not fits]
        if other:
            raise InputError(
                f"cache is 'disk', which writes *.npy files beside the images, but these files exist and are no "
                f"copies of the images ({len(other)}): {listed(other)}; move them, or write cache: ram"
            )
        fits: bool = super().check_cache_disk(safety_margin)
        return fits

    def _is_copy(self, i: int, size: Iterable[int] | None) -> bool:
        """Whether the array beside an image holds its pixels; Ultralytics goes by the times of the files alone."""
        if not _is_image(self._beside[i], size):
            return False
        image = imread(self.im_files[i], flags=self.cv2_flag)
        array = np.load(self._beside[i], mmap_mode="r", allow_pickle=False)
        if image is None or image.dtype != array.dtype or image.size != array.size:
            return True  # of another depth or number of channels: Ultralytics writes it anew
        return float(cv2.absdiff(image, np.array(array).reshape(image.shape)).mean()) < _LEVELS

    @property
    def npy_files(self) -> list[Path]:
        """Paths of decoded images: beside the images with ``cache="disk"``, else paths that do not exist."""
        if self.cache == "disk":
            return self._beside
        return [Path(os.devnull, "none.npy")] * len(self._beside)  # does not exist

    @npy_files.setter
    def npy_files(self, files: list[Path]) -> None:
        self._beside = files

    def load_image(self, i: int, *args: Any, **options: Any) -> Any:
        """An image of the set, BGR, with its size before and after it was resized."""
        try:
            return super().load_image(i, *args, **options)
        except FileNotFoundError as error:
            raise InputError(
                f"the image {self.im_files[i]} cannot be read or decoded; replace it, or remove it from "
                "the data set"
            ) from error


class StretchedImages(DetectionImages, RTDETRDataset):  # type: ignore[misc]
    """Images for RT-DETR: stretched to squares."""


def image_files(place: Path, *, hidden: bool = False) -> list[str]:
    """Image files of a folder, or of a list with one path a line, as ``BaseDataset.get_img_files`` finds them.

    With ``hidden`` also those in hidden folders, which torchvision finds for a classifier.

    Empty where there is neither. Ultralytics is not asked, because it reads and times some of them, which are
    drawn from Python's random generator.

    Raises:
        UnicodeDecodeError: the file is no text.
        OSError: it cannot be read.
    """
    if place.is_dir():
        pattern = str(Path(glob.escape(str(place))) / "**/*.*")
        found = glob.glob(pattern, recursive=True, include_hidden=hidden)
    elif place.is_file():
        lines = place.read_text(encoding="utf-8-sig").strip().splitlines()
        found = [f"{place.parent}/{x[2:]}" if x.startswith("./") else x for x in lines]
    else:
        found = []
    return [file for file in found if file.rpartition(".")[-1].lower() in utils.IMG_FORMATS]


def refuse_system_files(images: Iterable[str], folder: Path) -> None:
    """Refuse images of ``folder`` that lie in folders of the system, as thumbnails do.

    Raises:
        InputError: there are some.
    """
    if found := [file for file in images if made_by_a_system(Path(file), folder)]:
        raise InputError(
            f"{OF_A_SYSTEM.problem} ({len(found)}): {listed(found)}; {OF_A_SYSTEM.way_out}"
        )


def refuse_odd_files(images: Iterable[str], labels: Collection[str] = ()) -> None:
    """Refuse pipes, devices and folders among images and labels, which Ultralytics would open, and labels out of reach.

    Ultralytics takes an image whose label is a dead link, or is called ``.TXT``, for one without objects.

    Raises:
        InputError: there are some.
    """
    other = [file for file in (*images, *labels) if not os.path.isfile(file)]
    odd = [file for file in other if os.path.exists(file)]
    dead = [file for file in other if os.path.islink(file) and file not in odd]
    known = {*labels}
    missing = [file for file in other if file in known and not os.path.lexists(file)]
    capitals = in_other_case(missing, known)
    for kind, found in ((NOT_A_FILE, odd), (DEAD_LINK, dead), (OTHER_CASE, capitals)):
        if found:
            raise InputError(f"{kind.problem} ({len(found)}): {listed(found)}; {kind.way_out}")


def refuse_left_out(images: Sequence[str]) -> None:
    """Refuse to train without images that Ultralytics leaves out with only a line among its output.

    Args:
        images: their paths, each with the reason.

    Raises:
        InputError: there are some.
    """
    if images:
        raise InputError(
            f"{len(images)} training images are damaged, or their labels cannot be used, so that "
            f"Ultralytics would go on without them: {listed(images, 3)}; repair them, or remove them from the data set"
        )


def labels_folder() -> Path:
    """The folder of scanned labels, of this process or of the one that started it; it is deleted with its owner.

    Only the user can write there: Ultralytics unpickles what it finds.
    """
    given = os.environ.get(LABELS)
    if given is not None and _is_private(Path(given)):
        return Path(given)
    folder = Path(tempfile.mkdtemp(prefix="detprune-labels-"))
    os.environ[LABELS] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked worker
        shutil.rmtree(folder, ignore_errors=True)


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not stat.S_IMODE(status.st_mode) & 0o077
    )


def _is_image(array: Path, size: Iterable[int] | None) -> bool:
    """Whether an ``*.npy`` file holds decoded pixels of that height and width; nothing is unpickled."""
    try:
        pixels = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    # Ultralytics' older versions kept grey images without their last dimension
    fits = size is None or tuple(pixels.shape[:2]) == tuple(size)
    return pixels.dtype in (np.uint8, np.uint16) and pixels.ndim in (2, 3) and fits


@contextmanager
def no_repairs() -> Iterator[None]:
    """Let Ultralytics' check decode a JPEG file without an end instead of rewriting it.

    The images are left out that it would leave out: those that cannot be decoded to their end.
    """
    stock = utils._replace_image

    def decode(file: str | Path, write: Any) -> None:
        with Image.open(file) as image:
            image.load()

    utils._replace_image = decode
    try:
        yield
    finally:
        utils._replace_image = stock
