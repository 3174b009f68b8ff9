# SPDX-License-Identifier: AGPL-3.0-or-later
"""Diagnosis of files that are not Ultralytics checkpoints, without running any code in them.

Nothing is unpickled here except under torch's ``weights_only``; what a pickle refers to is read from its opcodes
(``references``). The diagnosis serves the messages alone; the safety of loading
rests on ``weights_only``.
"""

import pickle
import struct
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor
from ultralytics.engine import exporter

from detprune.errors import InputError
from detprune.files import check_archive, is_plain_pickle, refuse_packed
from detprune_yolo.environment import UNSAFE_LOAD
from detprune_yolo.weights.references import classes_in, damaged, names_in_archive, names_in_pickles

_FAMILY = (
    "Ultralytics ≥ 8 uses the anchor-free yolov3-tinyu, yolov3-sppu and yolov3u, whose heads differ; "
    "start from one of those, or train yolov3-tiny.yaml"
)
_TRUST = (
    "if you trust where it is from, set `unsafe_load: true` under model: in the recipe, or the variable "
    f"{UNSAFE_LOAD}=1 where there is no recipe"
)
_ANCHORS = ("module_list.", "anchor", ".m.0.weight")  # in parameter names of anchor-based YOLOs

LOADING_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    ImportError,
    struct.error,
)
"""Errors that torch and Ultralytics raise on files that they cannot read, depending on the damage."""


def refuse_foreign_file(path: Path) -> None:
    """Refuse a file that does not refer to Ultralytics classes, and so is no Ultralytics checkpoint.

    Raises:
        InputError: it is missing, a folder, empty or damaged; or of Darknet, of the yolov3, yolov5, yolov7 or
            yolov9 repository, an exported network, a model description, a state dict, or another pickle. Each
            message says what the file is and what to do instead.
    """
    if not path.exists():
        raise InputError(
            f"there is no file {path}; nothing is downloaded here: fetch the weights first, for example "
            "from https://github.com/ultralytics/assets/releases, and give the path of the file"
        )
    if not path.is_file():
        _refuse_exported(path)
        found = (path / place for place in ("weights/best.pt", "best.pt"))  # as trainings leave it
        best = next((str(file) for file in found if file.is_file()), "the best.pt of a training")
        raise InputError(f"{path} is a folder; give a checkpoint file, such as {best}")
    check_archive(path, "copy or download it again")
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = path.stat().st_size
            _refuse_by_first_bytes(path, head, size)
            archive = head.startswith(b"PK")
            names = names_in_archive(path) if archive else names_in_pickles(path, file)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if old := sorted(n for n in names if n.startswith("models.")):
        raise InputError(
            f"{path} cannot be loaded: this is a file of the yolov3, yolov5, yolov7 or yolov9 repository (it refers "
            f"to {old[0]}), whose networks are not those of Ultralytics ≥ 8; start from a checkpoint of Ultralytics, "
            "such as yolov3-tinyu.pt, yolov5su.pt or yolov9t.pt, or train a yaml, such as yolov3-tiny.yaml"
        )
    if not any(name.startswith("ultralytics.") for name in names):
        _refuse_without_network(path, names)


def refused_code(path: Path) -> InputError | None:
    """The error for a pickle that refers to more than ``weights_only`` allows, or None.

    To be called after an attempt to load the file: Ultralytics allows its own classes then.
    """
    try:
        names = set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except LOADING_ERRORS:  # not in torch's zip format
        with path.open("rb") as file:
            names = names_in_pickles(path, file)
        names = {n for n in names if not n.startswith(("torch._utils.", "collections.", "torch."))}
    if not names:
        return None
    shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
    return InputError(
        f"refused to load {path}: it wants to run {shown}, which is outside what checkpoints may "
        f"contain; {_TRUST}"
    )


def of_another_version(path: Path) -> InputError | None:
    """The error for a file whose network has layers that Ultralytics does not have here, or None."""
    names = (name for name in classes_in(path) if name.startswith("ultralytics.nn."))
    missing = sorted(name for name in names if not _is_here(*name.rpartition(".")[::2]))
    if not missing:
        return None
    return InputError(
        f"{path} cannot be loaded: it refers to {', '.join(missing[:5])}, which Ultralytics {ultralytics.__version__} "
        "does not have here; the file is of another version or of a changed copy of Ultralytics: install the one "
        "that wrote it, or start from a network that this one can build"
    )


def _plain_pickle(path: Path) -> InputError:
    return InputError(
        f"{path} is a pickle that torch.save did not write (pickle.dump, joblib), and opening one may run code; where "
        "it was written, write a checkpoint with YOLO(...).save(...)"
    )


def _is_here(module: str, name: str) -> bool:
    return hasattr(sys.modules.get(module), name)  # nothing is imported because a file names it


def _refuse_by_first_bytes(path: Path, head: bytes, size: int) -> None:
    suffix = path.suffix.lower()
    if size == 0:
        raise damaged(path, "0 bytes")
    if suffix == ".weights" or _is_darknet(head, size):
        raise InputError(
            f"{path} cannot be loaded: this is a Darknet .weights file of the anchor-based family; "
            f"{_FAMILY}"
        )
    text = head.lstrip()
    if suffix == ".cfg" or text.startswith(b"[net]"):
        raise InputError(
            f"{path} cannot be loaded: this is a Darknet .cfg, the description of a network of the "
            f"anchor-based family, without weights; {_FAMILY}"
        )
    if suffix in (".yaml", ".yml"):
        raise InputError(
            f"{path} is a text file without weights, a description or a recipe; give a .pt checkpoint here, or name "
            "the description as the architecture to train"
        )
    # protobuf: field 1 (IR version, a small number), then producer_name, domain or graph
    if suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a")):
        raise InputError(
            f"{path} is an ONNX file, which cannot be trained; give the .pt checkpoint that it was "
            "exported from"
        )
    if text.startswith((b"<", b"version https://git-lfs")):
        raise InputError(
            f"{path} is a text file, not a checkpoint: a web page or a Git LFS pointer that was saved "
            "in its place; download the file itself"
        )
    refuse_packed(path)
    if suffix != ".torchscript":  # its archive is looked into
        _refuse_exported(path)


def _refuse_exported(path: Path) -> None:
    """Refuse a file or folder whose name ends as that of a format to which Ultralytics exports."""
    table = exporter.export_formats()
    for title, suffix in zip(table["Format"], table["Suffix"], strict=True):
        if suffix != ".pt" and path.name.endswith(suffix):
            raise InputError(
                f"{path} is a network exported to {title}, by the end of its name ({suffix}), which cannot be "
                "trained; give the .pt checkpoint that it was exported from"
            )


def _is_darknet(head: bytes, size: int) -> bool:
    """Whether a file has the header of a Darknet .weights file.

    It is int32 major, minor and revision, int64 images seen (int32 before 0.2), then float32 values.
    """
    if len(head) < 16:
        return False
    major, minor, revision = struct.unpack_from("<3i", head)
    seen = 8 if major * 10 + minor >= 2 else 4
    return major == 0 and 1 <= minor <= 9 and 0 <= revision <= 99 and (size - 12 - seen) % 4 == 0


def _refuse_without_network(path: Path, names: set[str]) -> None:
    """Raise the error for a pickle without any Ultralytics class."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except LOADING_ERRORS as error:
        with path.open("rb") as file:
            plain = is_plain_pickle(file.read(64))
        raise refused_code(path) or (
            _plain_pickle(path) if plain else damaged(path, error)
        ) from error
    tensors = _state_dict(content)
    if tensors is None:
        held = f"a {type(content).__name__}"
        if isinstance(content, dict):
            held = f"a dict with the keys {', '.join(map(repr, list(content)[:8]))}"
        raise InputError(
            f"{path} holds {held} and no network; give a checkpoint that Ultralytics or detprune wrote"
        )
    if any(mark in name for name in tensors for mark in _ANCHORS):
        raise InputError(
            f"{path} cannot be loaded: this is a state dict file of the anchor-based family; {_FAMILY}"
        )
    _refuse_weights_of_a_run(path)
    raise InputError(
        f"{path} cannot be loaded: this is a state dict, {len(tensors)} tensors without their network. "
        "Build the network it belongs to, load it there (model.load_state_dict), and write a checkpoint "
        "with YOLO(...).save(...). A network that Ultralytics cannot build, as YOLOX, is pruned by dp.Pruner in its "
        "own training loop. If it comes from the yolov3 repository or from Darknet, it is of the "
        f"anchor-based family: {_FAMILY}"
    )


def _refuse_weights_of_a_run(path: Path) -> None:
    """Raise the error for the tensors that a run keeps of a stage, beside which it keeps whole networks."""
    checkpoints = path.absolute().parent
    run = checkpoints.parent
    whole = (checkpoints / "dense" / "weights" / "best.pt", run / "pruned.pt")
    if (run / "recipe.yaml").is_file() and (
        there := [str(file) for file in whole if file.is_file()]
    ):
        raise InputError(
            f"{path} holds the tensors of a run without their network; give {' or '.join(there)}, which holds a network"
        )


def _state_dict(content: Any) -> Mapping[str, Tensor] | None:
    """The tensors of a state dict, also of one inside a dict as repositories save them."""
    if not isinstance(content, dict):
        return None
    inner = [content.get(key) for key in ("state_dict", "model_state_dict", "ema", "model")]
    for candidate in (content, *inner):
        if (
            isinstance(candidate, dict)
            and candidate
            and all(isinstance(v, Tensor) for v in candidate.values())
        ):
            return {str(name): value for name, value in candidate.items()}
    return None
