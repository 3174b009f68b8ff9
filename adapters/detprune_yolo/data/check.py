# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check of a data set before training; one error lists all faults.

Ultralytics drops an image with a malformed label after one line in its log, takes an image without
a label file for background, and may follow the data set's ``download`` key. This check downloads and
writes nothing, and reads only the first bytes of an image.
"""

import math
import os
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from PIL import Image
from ultralytics.data.utils import check_det_dataset

from detprune.errors import InputError, listed
from detprune.files import load_yaml
from detprune.files.contents import check_utf8_path
from detprune.files.folders import check_listable, made_by_a_system
from detprune.files.problems import Kind as Fault
from detprune.files.problems import Problems, refuse
from detprune_yolo.data import problem_kinds as kinds
from detprune_yolo.data.images import image_files
from detprune_yolo.data.label_lines import Rules, check_labels
from detprune_yolo.data.places import check_class_folders, check_keypoints, names_without_text
from detprune_yolo.kinds import DETECT, Kind
from detprune_yolo.process_state import quiet

_SMALLEST = 10  # pixels a side
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DetectionData:
    """A data set that was checked.

    Attributes:
        yaml: the data yaml; for classification the folder.
        names: class number → name.
        images: split → its image files in Ultralytics' order; ``test`` only if the yaml names it
            and it is there.
        labelled: split → how many of its images have boxes; the others are background.
        pose: whether the labels may be pose labels, of which a detector takes the boxes.
        kpt_shape: number of key points, and of numbers of each; None without key points.
    """

    yaml: Path
    names: dict[int, str]
    images: dict[str, list[Path]]
    labelled: dict[str, int]
    pose: bool
    kpt_shape: tuple[int, ...] | None = None


def check_data(yaml: Path, *, nc: int | None = None, kind: Kind = DETECT) -> DetectionData:
    """Check a data set in Ultralytics' layout; ``nc`` is the model's number of classes, if it is set.

    Labels have to be those of the network's ``kind``; a detector also takes the boxes of polygons and of poses.

    Images need no label file, but some of train and of val do. Test images are checked only as far
    as they and their labels are there, since no training needs them.

    Raises:
        InputError: Ultralytics would stop, or leave images out without stopping, or two evaluated
            images would be one; names all problems of the yaml, else all of the files, each kind
            with its number, the first few and the way out.
    """
    check_utf8_path(yaml.absolute())
    if kind.labels == "folders":
        return _check_folders(yaml, nc)
    data = _read(yaml, nc, kind)
    names: dict[int, str] = data["names"]
    shape = data.get("kpt_shape") or [0, 0]
    keypoints = math.prod(shape)
    problems: Problems = defaultdict(list)
    images: dict[str, list[str]] = {}
    labelled: dict[str, int] = {}
    for split in _SPLITS:
        places = data.get(split) or []
        places = [places] if isinstance(places, str) else places
        if not places or (split == "test" and not all(Path(place).exists() for place in places)):
            continue
        images[split] = _image_files(split, places, problems)
        rules = Rules(len(names), keypoints, kind, shape[1])
        labelled[split] = check_labels(split, images[split], rules, problems)
        if split != "train":
            _check_ids(split, images[split], problems)
    refuse(yaml, problems)
    return DetectionData(
        yaml,
        names,
        {split: [Path(f) for f in files] for split, files in images.items()},
        labelled,
        pose=keypoints > 0,
        kpt_shape=tuple(data["kpt_shape"]) if keypoints else None,
    )


def _check_folders(folder: Path, nc: int | None) -> DetectionData:
    """Check a set for classification, whose images lie in the folders of their classes."""
    with quiet():
        data = check_class_folders(folder)
    names: dict[int, str] = data["names"]
    problems: Problems = defaultdict(list)
    if nc is not None and nc != len(names):
        problems[kinds.MODEL_NC].append(f"it has {nc} classes, {folder / 'train'} {len(names)}")
    images: dict[str, list[str]] = {}
    for split in _SPLITS:
        place = data.get(split)
        if place is None:
            continue
        images[split] = _image_files(split, [str(place)], problems, hidden=True)
        classes = {Path(file).relative_to(place).parts[0] for file in images[split]}
        strange = sorted(classes - {*names.values()})
        if strange:
            problems[kinds.OTHER_CLASSES].append(f"{split}: {listed(strange)}")
        empty = sorted({*names.values()} - classes) if split == "train" else []
        if empty:
            problems[kinds.EMPTY_CLASSES].append(listed(empty))
    refuse(folder, problems)
    found = {split: [Path(f) for f in files] for split, files in images.items()}
    counts = {split: len(files) for split, files in found.items()}
    return DetectionData(folder, names, found, counts, pose=False)


def _read(yaml: Path, nc: int | None, kind: Kind) -> dict[str, Any]:
    """The content of the yaml as Ultralytics reads it: paths resolved, names as a dict."""
    if yaml.is_dir():
        raise InputError(
            f"data.yaml is the folder {yaml}, which only a classifier learns from; a network for {kind.name} needs a "
            "file with the keys path, train, val and names"
        )
    if not yaml.is_file():
        raise InputError(
            f"no data yaml {str(yaml)!r}; give the path of a file with the keys path, train, val and "
            "names (no data set is downloaded). A relative path counts from the working directory, also where a run "
            "is resumed or measured: go to the directory in which the run was begun"
        )
    if yaml.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"the data yaml {str(yaml)!r} must be called *.yaml or *.yml")
    raw = load_yaml(yaml, strict=False)
    if not isinstance(raw, dict):
        raise InputError(f"{yaml} is not a YAML mapping; correct the file")
    if "validation" in raw:
        raw.setdefault("val", raw["validation"])
    problems: Problems = defaultdict(list)
    for key in ("train", "val", "names"):
        if not raw.get(key):
            problems[kinds.NO_KEY].append(f"`{key}`")
    for key in ("path", *_SPLITS, "minival"):
        given = raw.get(key)
        places = given if isinstance(given, list) and key != "path" else [given]
        if odd := [repr(place) for place in places if not isinstance(place, str | None)]:
            problems[kinds.PLACE_NO_TEXT].append(f"`{key}` has {listed(odd)}")
    if raw.get("channels", 3) != 3 or isinstance(raw.get("channels"), bool):
        problems[kinds.CHANNELS].append(f"`channels` is {raw['channels']!r}")
    if "kpt_shape" in raw and not _is_shape(raw["kpt_shape"]):  # null too: Ultralytics unpacks it
        problems[kinds.KEYPOINTS].append(f"`kpt_shape` is {raw['kpt_shape']!r}")
    if raw.get("names"):
        _check_names(raw["names"], raw.get("nc"), nc, problems)
    refuse(yaml, problems)
    if kind.labels == "keypoints":
        check_keypoints(raw, yaml)
    try:
        data: dict[str, Any] = check_det_dataset(str(yaml), autodownload=False)
    except FileNotFoundError as error:
        raise InputError(
            f"{yaml}: {str(error).strip().splitlines()[0]}; correct `path` and `val`, or put the "
            "images there (nothing is downloaded): `val` is taken from `path`; a relative `path` is "
            "taken from the working directory, and `path` is the yaml's folder if left out"
        ) from error
    except (SyntaxError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{yaml}: Ultralytics refuses it ({error}); correct the file") from error
    return data


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(size) is int and size > 0 for size in shape)
    )


def _check_names(names: Any, stated: Any, nc: int | None, problems: Problems) -> None:
    if not isinstance(names, list | dict):
        problems[kinds.NAMES_TYPE].append(repr(names))
        return
    count = len(names)
    if isinstance(names, dict):
        if {str(key) for key in names} != {str(number) for number in range(count)}:
            problems[kinds.NAMES_GAP].append(listed(map(str, names)))
        names = list(names.values())
    if odd := names_without_text(names):
        problems[kinds.NAMES_NO_TEXT].append(listed(odd))
        return
    for name, times in Counter(map(str, names)).items():
        if times > 1:
            problems[kinds.NAMES_TWICE].append(repr(name))
    if stated is not None and stated not in (count, str(count)):
        problems[kinds.NC].append(f"`nc` is {stated!r}, `names` lists {count} classes")
    if nc is not None and nc != count:
        problems[kinds.MODEL_NC].append(f"it has {nc} classes, `names` lists {count}")


def _image_files(
    split: str, places: list[str], problems: Problems, *, hidden: bool = False
) -> list[str]:
    """Image files of a split, after opening each of them; ``hidden`` as in `image_files`."""
    found: list[str] = []
    for place in map(Path, places):
        if not place.exists():
            problems[kinds.NO_PLACE].append(f"{split}: {place}")
            return []
        if place.is_dir():
            check_listable(place, hidden=hidden)
        try:
            if not place.is_dir() and not place.is_file():
                raise ValueError("a pipe or a device")
            entries = image_files(place, hidden=hidden)
        except (ValueError, OSError):
            problems[kinds.NO_LIST].append(f"{split}: {place}")
            return []
        if place.is_dir():
            strange = {file for file in entries if made_by_a_system(Path(file), place)}
            if strange:
                problems[kinds.OF_A_SYSTEM] += sorted(strange)
                entries = [file for file in entries if file not in strange]
        else:
            absent = [file for file in entries if not Path(file).exists()]
            if absent:
                problems[kinds.NO_FILE] += [f"{file} (in {place.name})" for file in absent]
        found += entries
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        for file, kind in zip(found, pool.imap(_image_fault, found, chunksize=64), strict=True):
            if kind is not None:
                problems[kind].append(file)
    if not found:
        problems[kinds.NO_IMAGES].append(f"{split}: {listed(places)}")
    return sorted(found)


def _image_fault(file: str) -> Fault | None:
    """The reason for which Ultralytics would stop at an image or leave it out, from its first bytes; or None."""
    if not os.path.exists(file):  # a missing file of a list is reported with the list
        return kinds.DEAD_LINK if os.path.islink(file) else None
    if not os.path.isfile(file):
        return kinds.NOT_A_FILE
    if not os.access(file, os.R_OK):
        return kinds.UNREADABLE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return kinds.TOO_SMALL if min(image.size) < _SMALLEST else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return kinds.NO_IMAGE


def _check_ids(split: str, files: list[str], problems: Problems) -> None:
    # Ultralytics reads a number from a name, so that 7.jpg and 007.png are one image for it
    stems = [Path(file).stem for file in files]
    counts = Counter(_number(stem) for stem in stems)
    twice = [f"{split}: {name} ({times} images)" for name, times in counts.items() if times > 1]
    if twice:
        problems[kinds.SAME_NAME] += twice


def _number(stem: str) -> int | str:
    try:
        return int(stem) if stem.isdecimal() else stem
    except ValueError:  # Python converts no more than 4,300 digits
        return stem
