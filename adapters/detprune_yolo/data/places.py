# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check that a data set is on this machine and has the form of the task, before Ultralytics looks for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ultralytics.cfg import TASK2DATA
from ultralytics.data.utils import check_cls_dataset, check_det_dataset

from detprune.errors import InputError, listed
from detprune.files import load_yaml
from detprune_yolo.data.problem_kinds import NAMES_NO_TEXT
from detprune_yolo.kinds import Kind


def check_place(data: str, split: str, kind: Kind) -> None:
    """Refuse a data set that is not there, because nothing is downloaded, or that is another kind's.

    Args:
        data: a data yaml; for classification a folder.
        split: the images on which training validates.
        kind: the kind of the network.

    Raises:
        InputError: it cannot be used.
    """
    if kind.labels == "folders":
        check_class_folders(Path(data))
        return
    if Path(data).is_dir():
        raise InputError(
            f"data is the folder {data}, which only a classifier is trained on; a network for {kind.name} needs a data "
            "yaml (train, val, names)"
        )
    try:
        if "://" in data or data.endswith(".ndjson"):
            raise FileNotFoundError("it is not a file on this machine")
        found = check_det_dataset(data, autodownload=False, split=split)
    except FileNotFoundError as error:
        raise InputError(
            f"data is {data}{_unless_given(data)}: {str(error).strip().splitlines()[0]}; put the images there "
            "first, because nothing is downloaded"
        ) from error
    # Ultralytics has made text of them
    names = load_yaml(Path(found["yaml_file"]), strict=False).get("names") or ()
    odd = names_without_text(names.values() if isinstance(names, dict) else names)
    if odd:
        raise InputError(f"{data}: {NAMES_NO_TEXT.problem}: {listed(odd)}; {NAMES_NO_TEXT.way_out}")
    if kind.labels == "keypoints":
        check_keypoints(found, data)


def _unless_given(data: str) -> str:
    """What explains a data set that the user may not have named."""
    if data not in TASK2DATA.values():
        return ""
    return ", which Ultralytics takes where data= is left out of train()"


def names_without_text(names: Iterable[object]) -> list[str]:
    """The class names that YAML has read as something else than text or numbers, such as ``no``."""
    return [
        repr(name)
        for name in names
        if not isinstance(name, str | int | float) or isinstance(name, bool)
    ]


def check_class_folders(folder: Path) -> dict[str, Any]:
    """Ultralytics' description of a set for classification: ``train/<class>/`` and ``val/<class>/``.

    Raises:
        InputError: the folder, or one of the two splits, is not there.
    """
    way_out = (
        "give a folder that holds train/<class>/<image> and val/<class>/<image> (nothing is downloaded, and no set is "
        "split)"
    )
    if folder.is_file() and folder.suffix.lower() in (".yaml", ".yml"):
        raise InputError(
            f"data is {folder}, a data yaml, but a classifier learns from folders; {way_out}"
        )
    if "://" in str(folder) or not folder.is_dir():
        raise InputError(f"data is {folder}, and there is no such folder; {way_out}")
    missing = [split for split in ("train", "val") if not (folder / split).is_dir()]
    if missing == ["val"] and any((folder / s).is_dir() for s in ("validation", "valid")):
        missing = []
    if missing:
        raise InputError(f"the folder {folder} has no folder {missing[0]}; {way_out}")
    try:
        found: dict[str, Any] = check_cls_dataset(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {str(error).strip().splitlines()[0]}; {way_out}") from error
    if not found["nc"]:
        raise InputError(f"{folder / 'train'} holds no folders of classes; {way_out}")
    return found


def check_keypoints(data: dict[str, Any], name: object) -> None:
    """Refuse a data set for poses whose key points are not described, or described wrongly.

    Raises:
        InputError: no ``kpt_shape``, or ``flip_idx`` or ``kpt_oks_sigmas`` that do not fit it.
    """
    shape = data.get("kpt_shape")
    if shape is None:
        raise InputError(
            f"{name} has no kpt_shape, so that it is no data set for poses; give kpt_shape: [number of points, 2 or "
            "3], or a network for detection"
        )
    if not is_keypoint_shape(shape):
        raise InputError(
            f"{name}: kpt_shape is {shape!r}; it is [number of points, 2 or 3]: x, y and, with 3, whether it is visible"
        )
    points, flip, sigmas = shape[0], data.get("flip_idx"), data.get("kpt_oks_sigmas")
    if flip and sorted(map(str, flip)) != sorted(map(str, range(points))):
        raise InputError(
            f"{name}: flip_idx is {flip!r}; it gives for each of the {points} points the number of the one that a "
            "mirrored image has in its place"
        )
    if sigmas is not None and not (
        isinstance(sigmas, list)
        and len(sigmas) == points
        and all(isinstance(s, int | float) and not isinstance(s, bool) and s > 0 for s in sigmas)
    ):
        raise InputError(
            f"{name}: kpt_oks_sigmas is {sigmas!r}; it has {points} positive numbers, one for each point"
        )


def is_keypoint_shape(shape: object) -> bool:
    """Whether ``kpt_shape`` is a number of points, and 2 or 3 numbers for each."""
    return (
        isinstance(shape, list | tuple)
        and len(shape) == 2
        and all(type(size) is int and size > 0 for size in shape)
        and shape[1] in (2, 3)
    )
