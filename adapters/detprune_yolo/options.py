# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' training options in a recipe: which are allowed, and the checks of values that Ultralytics lacks."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from detprune.errors import InputError, nearest, unknown
from detprune_yolo.kinds import KINDS, Kind, Labels

SET_BY_DETPRUNE: Mapping[str, str] = {
    "model": "write it as model: of the recipe",
    "data": "write it as data: of the recipe",
    "split": "write it as data.split of the recipe",
    "epochs": "write it as epochs of the stage",
    "seed": "write it as seed: of the recipe",
    "time": "write epochs of the stage, because outer iterations are counted in epochs",
    "resume": "use detprune run --resume",
    "project": "use detprune run --out",
    "name": "use detprune run --out",
    "exist_ok": "use detprune run --overwrite",
    "save": "it is always on, because each stage starts with the file of the one before",
    "task": "it follows from the model",
    "mode": "it is always train",
    "cfg": "write its options as train: of the recipe",
    "pretrained": "write it as model.weights of the recipe",
    "single_cls": "change the labels of the data set",
    "classes": "change the labels of the data set",
    "quantize": "quantization-aware training replaces the modules that are pruned, so leave it out",
    "distill_model": "write distillation: of the recipe, by which the dense detector teaches",
}
"""Ultralytics' options that a recipe may not give → what to do instead."""


_OF_LABELS: Mapping[Labels, tuple[str, ...]] = {
    "polygons": ("overlap_mask", "mask_ratio", "retina_masks"),
    "folders": ("dropout", "auto_augment", "erasing"),
    "keypoints": ("pose", "kobj", "rle"),
    "corners": ("angle",),
}
"""Options that have an effect for one kind of labels alone."""

_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "depth": ("dlog", "dgrad", "dlam"),
    "prediction": (
        *("source", "vid_stride", "stream_buffer", "embed", "tracker", "dnn"),
        "augment",
    ),
    "drawing predictions": (
        *("show", "save_frames", "save_crop", "show_labels", "show_conf", "show_boxes"),
        "line_width",
    ),
    "export": ("format", "optimize", "dynamic", "simplify", "opset", "workspace"),
}
"""Options that have no effect in training, by their purpose."""

_BOXES_ONLY = (
    *(
        "box",
        "cls",
        "dfl",
        "cls_pw",
        "nms",
        "max_det",
        "iou",
        "rect",
        "multi_scale",
        "close_mosaic",
    ),
    *("mosaic", "mixup", "cutmix", "copy_paste", "degrees", "translate", "shear", "perspective"),
)
"""Options without an effect where images have one class each."""


def check_device(device: Any) -> None:
    """Refuse a device that this machine does not have."""
    there = torch.cuda.device_count()
    asked = [part.removeprefix("cuda:") for part in _devices(device)]
    numbers = [0 if part == "cuda" else int(part[:9]) for part in asked if part not in _NO_GPU]
    if any(number >= there for number in numbers):
        raise InputError(f"device is {device!r}, but this machine has {there} CUDA GPUs; write cpu")


def _devices(device: Any) -> list[str]:
    named = ",".join(map(str, device)) if isinstance(device, list | tuple) else str(device)
    return [part.strip().lower() for part in named.strip("()[] ").split(",") if part.strip()]


_NO_GPU = ("none", "cpu", "mps", "-1")

_OPTIMIZERS = ("SGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "MuSGD", "auto")

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimizer": _OPTIMIZERS,
    "copy_paste_mode": ("flip", "mixup"),
    "cache": ("False", "True", "None", "ram", "disk"),
    "compile": (
        *("False", "True", "default", "reduce-overhead"),
        *("max-autotune", "max-autotune-no-cudagraphs"),
    ),
    "auto_augment": ("randaugment", "autoaugment", "augmix", "None"),
}
"""Allowed words of options that Ultralytics checks only when it trains; it ignores the case of optimizers."""

_LIMITS: Mapping[str, tuple[float, float, str]] = {
    "imgsz": (32, 8192, "pixels"),  # more is beyond any GPU
    "batch": (-1, 65_536, "images"),
    "workers": (0, 1024, "processes"),
    "nbs": (1, 1_000_000, "images"),
    "lr0": (1e-12, 1, "the learning rate"),
    "lrf": (0, 1, "the share of lr0 at the end"),
    "momentum": (0, 0.9999, "the momentum"),  # Adam divides by 1 - momentum
    "weight_decay": (0, 1, "the decay"),
    "warmup_epochs": (0, 1e6, "epochs"),
    "warmup_momentum": (0, 0.9999, "the momentum"),
    "warmup_bias_lr": (0, 1, "the learning rate"),
    "patience": (0, 1e9, "epochs"),
    "close_mosaic": (0, 1e9, "epochs"),
    "max_det": (1, 100_000, "boxes"),
    "fraction": (1e-9, 1, "a share of the images"),
    "box": (0, 1e6, "the weight of a loss"),
    "cls": (0, 1e6, "the weight of a loss"),
    "dfl": (0, 1e6, "the weight of a loss"),
}
"""Options whose range Ultralytics does not check → least value, largest value, and meaning."""


_BATCH = int(DEFAULT_CFG_DICT["batch"])
"""Ultralytics' number of images in a batch, also where it cannot search for one."""


def _check_values(options: Mapping[str, Any]) -> None:
    for key, (least, most, what) in _LIMITS.items():
        value = options.get(key)
        if isinstance(value, bool) or (
            isinstance(value, int | float) and not least <= value <= most
        ):
            raise InputError(
                f"{key} is {value!r}; allowed is a number from {least:g} to {most:g} ({what})"
            )
    for key, allowed in _CHOICES.items():
        word = str(options.get(key, allowed[0]))
        if word not in allowed and not (
            key == "optimizer" and word.lower() in map(str.lower, allowed)
        ):
            raise unknown(key, word, allowed)
    _check_freeze(options.get("freeze"))
    batch = options.get("batch", _BATCH)
    if batch == 0 or (isinstance(batch, float) and not 0 < batch < 1 and batch != -1):
        raise InputError(
            f"batch is {batch!r}; give a whole number of images, or for a GPU -1 or the share of its memory to fill "
            "(0.7)"
        )
    if str(options.get("optimizer")).lower() == "rmsprop" and options.get("warmup_momentum") == 0:
        raise InputError(
            "warmup_momentum is 0, but torch's RMSProp cannot take up momentum later; give warmup_momentum above 0 "
            "(0.8), or another optimizer"
        )
    device = options.get("device")
    parts = _devices(device)
    strange = [p for p in parts if not re.fullmatch(r"none|cpu|mps|cuda|(cuda:)?\d+|-1", p)]
    if device is not None and (strange or not parts or len(set(parts)) < len(parts)):
        raise InputError(
            f"device is {device!r}; allowed are cpu, the number of a GPU (0), or a list of them ([0, 1])"
        )


def images_of_a_batch(options: Mapping[str, Any]) -> int | None:
    """The number of images in a batch; None where Ultralytics finds it by the memory of a GPU."""
    batch = options.get("batch", _BATCH)
    if batch >= 1:
        return int(batch)
    on_gpu = torch.cuda.is_available() and set(_devices(options.get("device"))) != {"cpu"}
    return None if on_gpu else _BATCH


def _check_freeze(freeze: object) -> None:
    """Refuse a ``freeze`` that is neither a number of first layers nor a list of layers by number or name."""
    layers = freeze if isinstance(freeze, list | tuple) else [freeze]
    for layer in layers:
        number = isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0
        named = isinstance(layer, str) and layer != "" and layers is freeze
        if not (number or named or freeze is None):
            raise InputError(
                f"freeze is {freeze!r}; allowed are a number of first layers (10), or a list of layers by number or "
                "name ([0, 1, 'model.22'])"
            )


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that Ultralytics does not know, whose values it refuses, or that detprune sets."""
    strange = [
        f"{key} is not for train; {SET_BY_DETPRUNE[key]}"
        if key in SET_BY_DETPRUNE
        else f"unknown option {key!r} of Ultralytics{nearest(key, DEFAULT_CFG_DICT)}; its options "
        "are listed by: yolo cfg"
        for key in options
        if key in SET_BY_DETPRUNE or key not in DEFAULT_CFG_DICT
    ]
    if strange:
        raise InputError("\n    ".join(strange))
    if not isinstance(options.get("imgsz", 640), int):
        raise InputError(f"imgsz is {options['imgsz']!r}; training takes one number of pixels")
    for key, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key} is {value}, which is no finite number")
        if isinstance(value, bool) and type(DEFAULT_CFG_DICT[key]) in (int, float):
            raise InputError(f"{key} is {str(value).lower()}, which is no number")
    if isinstance(options.get("fraction"), list):
        raise InputError("fraction is a list; give one number, for the training images alone")
    if "mps" in str(options.get("device")):
        raise InputError(
            "device is mps, which has no float64 for the sums of constrained training; use cpu or a GPU"
        )
    _check_values(options)
    try:
        get_cfg(overrides=dict(options))
    except (TypeError, ValueError) as error:
        raise InputError(f"Ultralytics refuses an option: {error}") from error
    return options


def check_use(options: Mapping[str, Any], kind: Kind) -> None:
    """Refuse options that would have no effect; a default that is spelled out is accepted.

    Args:
        options: Ultralytics' options.
        kind: the kind of the network that trains.
    """
    unused = dict(_ELSEWHERE)
    for labels, keys in _OF_LABELS.items():
        if labels != kind.labels:
            unused[next(k.name for k in KINDS if k.labels == labels)] = keys
    if kind.labels == "folders":
        unused["networks that give boxes"] = _BOXES_ONLY
    what = "detector" if kind.labels == "boxes" else f"network for {kind.name}"
    for purpose, keys in unused.items():
        for key in keys:
            if key in options and options[key] != DEFAULT_CFG_DICT.get(key):
                raise InputError(
                    f"{key} is {options[key]!r}, but it is for {purpose}, and does nothing while a {what} trains; "
                    "leave it out"
                )
