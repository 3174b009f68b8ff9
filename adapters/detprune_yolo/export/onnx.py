# SPDX-License-Identifier: AGPL-3.0-or-later
"""ONNX files by Ultralytics' exporter, checked against the checkpoint before they get their name.

The check covers the zeros (exactly the pruned weights are zero in the file) and the outputs (ONNX Runtime
against PyTorch on the same images).
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ultralytics.models.yolo import YOLO
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.checks import check_imgsz

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.networks.finite import check_finite
from detprune.run.export.onnx_files import check_request
from detprune_yolo.export.exporter import silence
from detprune_yolo.export.onnx_checks import LayerZeros, count_zeros, write_pad_axes
from detprune_yolo.export.onnx_outputs import compare_outputs
from detprune_yolo.kinds import is_end_to_end
from detprune_yolo.weights.checkpoints import load_model, read_masks

_PACKAGES = ("onnx", "onnxslim", "onnxruntime")


@dataclass(frozen=True)
class ExportCheck:
    """Results of the check of an exported file.

    Attributes:
        path: the file.
        nonzero, zeros: sums over ``layers``.
        layers: parameter name in the checkpoint → its zeros; the masked weights, or, without masks,
            every convolution.
        absent: masked weights of branches that only training uses and the file does not contain.
        max_box_difference: pixels, ONNX Runtime against PyTorch in float32.
        max_score_difference: class scores between 0 and 1.
        runtime_note: note for users of the file, or None.
        end_to_end: whether the file gives the boxes of a one-to-one branch, which need no non-maximum suppression.
    """

    path: Path
    nonzero: int
    zeros: int
    layers: Mapping[str, LayerZeros]
    absent: tuple[str, ...]
    max_box_difference: float
    max_score_difference: float
    runtime_note: str | None
    end_to_end: bool = False


def lines_of(check: ExportCheck, weights: Path) -> list[str]:
    """The check of an exported file as lines to print."""
    total = check.nonzero + check.zeros
    lines = [
        f"{check.zeros:,} of {total:,} weights in {len(check.layers)} layers are zero, as in {weights}",
        f"largest difference from PyTorch: boxes {check.max_box_difference:.2g} px, "
        f"scores {check.max_score_difference:.2g}",
    ]
    kept = sum(z.zeros - z.masked for z in check.layers.values() if z.masked is not None)
    if kept:
        lines.append(f"{kept:,} of them were kept by pruning and are too small for half precision")
    return lines + ([check.runtime_note] if check.runtime_note else [])


def export_onnx(
    weights: Path,
    out: Path,
    *,
    imgsz: int | tuple[int, int],
    batch: int = 1,
    opset: int | None = None,
    simplify: bool = True,
    dynamic: bool = False,
    tolerance: float = 1e-2,
) -> ExportCheck:
    """Write an ONNX file of a network, float32, and check it; nothing is written if a check fails.

    Input ``images``: (batch, channels, height, width), RGB between 0 and 1. Output ``output0`` of a detector: (batch,
    4 + classes, anchors), boxes as centre, width and height in pixels, then the class scores, then mask coefficients,
    key points or the angle; masks have their prototypes in ``output1``. With a one-to-one branch (yolov10, yolo26) it
    is what that branch gives, without non-maximum suppression: (batch, boxes, 6 + …), corners, score and class, best
    first. Of a classifier: (batch, classes), probabilities.

    Args:
        weights: an Ultralytics checkpoint, with or without masks.
        out: the ``.onnx`` file.
        imgsz: image side in pixels, or (height, width); multiples of the largest stride.
        opset: opset of ONNX; None: Ultralytics' default. From 18 on, ONNX Runtime needs no special option.
        dynamic: leave batch and image size open.
        tolerance: allowed difference of boxes in pixels; of scores, a hundredth of it.

    Raises:
        InputError: a checkpoint, size or name that cannot be used, or a package is missing.
        NonFiniteError: the checkpoint holds NaN or infinity.
        DetpruneError: the zeros or the outputs of the file differ from the checkpoint's.
    """
    check_request(out, _PACKAGES, "yolo")
    if batch < 1:
        raise InputError(f"batch is {batch}; it has to be at least 1")
    model = load_model(weights)
    check_finite(model, f"the network in {weights}")
    end_to_end = is_end_to_end(model)
    size = _image_size(model, imgsz)
    masks = read_masks(weights)
    fused = model.fuse(verbose=False)
    with tempfile.TemporaryDirectory() as folder, silence():
        shutil.copyfile(weights, Path(folder) / "model.pt")
        written = Path(
            YOLO(Path(folder) / "model.pt").export(
                format="onnx",
                imgsz=list(size),
                batch=batch,
                opset=opset,
                simplify=simplify,
                dynamic=dynamic,
                nms=False if end_to_end else None,
                device="cpu",
            )
        )
        safe_padding = write_pad_axes(written)
        layers, absent = count_zeros(
            written, fused, None if masks is None else {n: m.numpy() for n, m in masks.items()}
        )
        boxes, scores, note = compare_outputs(
            written, fused, batch, size, tolerance=tolerance, safe_padding=safe_padding
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic(out) as temporary:
            shutil.copyfile(written, temporary)
    zeros = sum(layer.zeros for layer in layers.values())
    total = sum(layer.size for layer in layers.values())
    return ExportCheck(out, total - zeros, zeros, layers, absent, boxes, scores, note, end_to_end)


def _image_size(model: BaseModel, imgsz: int | tuple[int, int]) -> tuple[int, int]:
    stride = int(max(model.stride))
    given = [imgsz, imgsz] if isinstance(imgsz, int) else list(imgsz)
    if len(given) != 2 or any(side < stride or side % stride for side in given):
        raise InputError(
            f"imgsz is {imgsz}; it has to be one side or (height, width) in pixels, multiples of the "
            f"model's stride {stride}"
        )
    height, width = check_imgsz(given, stride=stride, min_dim=2)
    return height, width
