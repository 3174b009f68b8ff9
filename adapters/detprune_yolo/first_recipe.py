# SPDX-License-Identifier: AGPL-3.0-or-later
"""The first recipe for a checkpoint of Ultralytics: its own training's settings, and epochs that fit its length."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ultralytics.utils import DEFAULT_CFG_DICT

from detprune.errors import InputError
from detprune.files import dump_yaml_line
from detprune.run.adapter import FirstRun
from detprune_yolo.data.check import check_data
from detprune_yolo.descriptions import refuse_fused
from detprune_yolo.kinds import Kind, kind_of
from detprune_yolo.options import check_options
from detprune_yolo.weights.checkpoints import load_model, train_args_of

_SHARE = (
    0.4  # of the checkpoint's epochs; measured with yolov8n on drawn shapes, see docs/results.md
)
_CONSTRAINED = 1 / 3  # of those
_MOST, _LEAST = 80, 6  # epochs
_LEARNING_RATE = 0.4  # of the checkpoint's own, as in that measurement
_SMALL = 5000  # images; of smaller sets, every batch is a step of the optimizer

_KEPT = (
    *("momentum", "weight_decay", "rect"),
    *("box", "cls", "dfl", "pose", "kobj", "angle", "overlap_mask", "mask_ratio"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective"),
    *("flipud", "fliplr", "bgr", "mosaic", "close_mosaic", "mixup", "cutmix"),
    *("copy_paste", "copy_paste_mode", "auto_augment", "erasing", "dropout"),
)


def first_recipe(wanted: FirstRun) -> str:
    """Write a commented recipe that prunes whole channels of a checkpoint.

    Raises:
        InputError: the file is no checkpoint of Ultralytics, or the data set does not fit it.
    """
    network = load_model(wanted.checkpoint)
    refuse_fused(network, wanted.checkpoint)
    args = train_args_of(wanted.checkpoint)
    data = _data(wanted, args)
    kind = kind_of(network)
    found = check_data(data, nc=len(network.names), kind=kind)
    train = _train(args, len(found.images["train"]), kind)
    return "\n".join([*_head(wanted, data), *_body(wanted, args, train)]) + "\n"


def _data(wanted: FirstRun, args: Mapping[str, Any]) -> Path:
    named = args.get("data")
    if wanted.data is None or (named and wanted.data.absolute() == Path(str(named)).absolute()):
        _check_labels(wanted, args)
    if wanted.data is not None:
        return wanted.data
    if not named:
        raise InputError(
            f"{wanted.checkpoint} names no data set; give the one that it was trained on with --data"
        )
    if not Path(str(named)).exists():  # a classifier's is a folder
        raise InputError(
            f"{wanted.checkpoint} was trained on {named}, which is not on this machine; give the data set with --data"
        )
    return Path(str(named))


def _check_labels(wanted: FirstRun, args: Mapping[str, Any]) -> None:
    """Refuse the checkpoint's own data set where it did not learn the labels as they are there."""
    for key in ("classes", "single_cls"):
        if args.get(key) not in (None, False, []):
            raise InputError(
                f"{wanted.checkpoint} was trained with {key}={args[key]}, by which Ultralytics changed the labels of "
                f"{args.get('data')} in memory, and a run would train and measure it on all of them; write the labels "
                "that it learned as a data set of their own, and give that with --data"
            )


def _train(args: Mapping[str, Any], images: int, kind: Kind) -> dict[str, Any]:
    """The checkpoint's own options, as far as they differ from Ultralytics' defaults and fit any stage."""
    kept = {
        key: args[key]
        for key in _KEPT
        if key in args and key in DEFAULT_CFG_DICT and args[key] != DEFAULT_CFG_DICT[key]
    }
    batch, size = args.get("batch"), args.get("imgsz")
    kept["batch"] = batch if isinstance(batch, int) and batch > 0 else 16
    kept["imgsz"] = size if isinstance(size, int) else kind.imgsz
    kept["verbose"] = False  # no table of all classes after every stage
    if images < _SMALL:
        kept["nbs"] = kept["batch"]
    return check_options(
        dict(sorted(kept.items(), key=lambda item: item[0] not in ("imgsz", "batch", "nbs")))
    )


def _own_epochs(args: Mapping[str, Any]) -> int | None:
    """Epochs of the checkpoint's own training; None where it says none, or what is no number of epochs."""
    own = args.get("epochs")
    return own if isinstance(own, int) and not isinstance(own, bool) and own > 0 else None


def _epochs(wanted: FirstRun, args: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs of constrained training and of retraining."""
    if wanted.epochs is not None:
        total = wanted.epochs
    else:
        total = min(_MOST, max(_LEAST, round(_SHARE * min(_own_epochs(args) or 100, 10**6))))
    constrained = max(1, math.floor(total * _CONSTRAINED))
    return constrained, total - constrained


def _rate(args: Mapping[str, Any]) -> float:
    """Learning rate for SGD; a checkpoint that another optimizer made says nothing about it."""
    own = args.get("lr0")
    sgd = str(args.get("optimizer", "auto")).upper() == "SGD"
    known = own if sgd and isinstance(own, float) and math.isfinite(own) else 0.01
    return float(f"{_LEARNING_RATE * known:.2g}")


def _head(wanted: FirstRun, data: Path) -> Iterator[str]:
    share = ", ".join(f"{value:g} of its {_WORDS[key]}" for key, value in wanted.budget.items())
    yield f"# Prune {wanted.checkpoint.name} to {share}: whole channels, which are taken out of the network."
    yield "# Every key with its default: detprune validate FILE"
    yield "task: yolo"
    yield f"name: {dump_yaml_line(wanted.name)}"
    yield ""
    yield "# the trained network, and the data set on which it is trained and measured"
    yield f"model: {dump_yaml_line({'weights': str(wanted.checkpoint)})}"
    yield f"data: {dump_yaml_line({'yaml': str(data)})}"
    yield ""
    yield "# what is pruned, and the share that is left; round_to: widths stay multiples of it, which runtimes like"
    yield "set: {name: coupled_channels, round_to: 8}"
    yield f"budget: {dump_yaml_line(dict(wanted.budget))}"
    yield ""
    yield "# constrained training pulls the weights towards fewer channels, and more strongly as it goes on"
    yield "method: {name: admm, rho: {pull: {start: 2, end: 4}}, ramp: 0.75, free_support: true}"
    yield ""


_WORDS = {"macs": "MACs", "parameters": "parameters", "latency": "latency"}


def _body(wanted: FirstRun, args: Mapping[str, Any], train: Mapping[str, Any]) -> Iterator[str]:
    constrained, retrain = _epochs(wanted, args)
    rate = _rate(args)
    yield "# Ultralytics' options in all stages: those of the checkpoint's own training that differ from the defaults"
    yield "train:"
    for key, value in train.items():
        note = (
            "  # a step of the optimizer for every batch: the set is small" if key == "nbs" else ""
        )
        yield f"  {key}: {dump_yaml_line(value)}{note}"
    yield ""
    yield f"# the checkpoint was trained for {_own_epochs(args) or 'an unknown number of'} epochs"
    yield "stages:"
    yield "  constrained:"
    yield f"    epochs: {constrained}"
    yield f"    train: {{optimizer: SGD, lr0: {rate:g}, lrf: 1.0, warmup_epochs: 0}}"
    yield "  retrain:  # of the smaller network"
    yield f"    epochs: {retrain}"
    yield f"    train: {{optimizer: SGD, lr0: {rate:g}, warmup_epochs: 0}}"
