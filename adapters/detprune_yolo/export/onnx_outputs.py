# SPDX-License-Identifier: AGPL-3.0-or-later
"""The check of an ONNX file's outputs: ONNX Runtime against PyTorch on the same images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.nn.tasks import BaseModel

from detprune.errors import DetpruneError
from detprune.run.export.onnx_files import session
from detprune_yolo.kinds import CLASSIFY, POSE, RTDETR, kind_of

_PAD_FUSION = "Pad_Fusion"
_PAD_AXES_OPSET = 18
_TRIED = 8  # images of noise, of which one is taken

Array = NDArray[np.float32]


def compare_outputs(
    path: Path,
    fused: BaseModel,
    batch: int,
    size: tuple[int, int],
    *,
    tolerance: float,
    safe_padding: bool,
) -> tuple[float, float, str | None]:
    """Largest differences of boxes (px) and of scores, and a note if the runtime needs an option.

    Key points count with the boxes; mask coefficients, prototypes, angles and probabilities with the scores, over
    their largest absolute value where that is above 1. In the ranked list of an end-to-end head each row is compared
    with the row of the same class and score, because entries of nearly equal score may change places.

    Args:
        size: height and width in pixels.
        tolerance: allowed difference in pixels; of scores, a hundredth of it.
        safe_padding: the result of ``write_pad_axes``.

    Raises:
        DetpruneError: the differences are larger, or an output is not a number.
    """
    images = _images(fused, (batch, _channels(fused), *size))
    with torch.inference_mode():
        expected = [_outputs(fused, torch.from_numpy(image)) for image in images]
    disabled = [] if safe_padding else [_PAD_FUSION]
    boxes, scores = _differences(path, images, expected, disabled, fused)
    if not (boxes <= tolerance and scores <= tolerance / 100):
        raise DetpruneError(
            f"the outputs of the ONNX file differ from PyTorch by {boxes:.3g} px in boxes (allowed: "
            f"{tolerance:g}) and {scores:.3g} in scores (allowed: {tolerance / 100:g}), so it was not "
            "written; raise the tolerance if that is small enough for the purpose, or try another opset "
            "or simplify=False"
        )
    if safe_padding:
        return boxes, scores, None
    default, _ = _differences(path, images, expected, [], fused)
    return (
        boxes,
        scores,
        f"ONNX Runtime's {_PAD_FUSION} is wrong for the zero padding in this network (boxes off by "
        f"{default:.2g} px on the images of the check): make sessions with InferenceSession(…, "
        f"disabled_optimizers=['{_PAD_FUSION}']), or export with opset {_PAD_AXES_OPSET} or later, which "
        "needs no option",
    )


def _images(fused: BaseModel, shape: tuple[int, ...]) -> list[Array]:
    """Noise and a black image; of RT-DETR, in which a black image has queries of equal score, the clearest noise."""
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    if kind_of(fused) != RTDETR:
        return [noise, np.zeros_like(noise)]
    tried = [np.random.default_rng(seed).random(shape, dtype=np.float32) for seed in range(_TRIED)]
    return [max(tried, key=lambda image: _margin(fused, image))]


def _margin(fused: BaseModel, image: Array) -> float:
    """Difference of the scores of the last query that RT-DETR's encoder takes, and of the first that it leaves."""
    head: Any = fused.model[-1]
    scores: list[torch.Tensor] = []
    hook = head.enc_score_head.register_forward_hook(lambda *given: scores.append(given[2]))
    try:
        with torch.inference_mode():
            fused(torch.from_numpy(image))
    finally:
        hook.remove()
    ranked = scores[0].max(dim=-1).values.sort(dim=1, descending=True).values
    number = min(int(head.num_queries), ranked.shape[1] - 1)
    return float((ranked[:, number - 1] - ranked[:, number]).min())


def _outputs(fused: BaseModel, image: torch.Tensor) -> list[Array]:
    """What an exported network returns: predictions, and with masks their prototypes."""
    first: Any = fused(image)[0]
    return [np.asarray(own) for own in (first if isinstance(first, tuple) else (first,))]


def _differences(
    path: Path,
    images: Sequence[Array],
    expected: Sequence[Sequence[Array]],
    disabled: Sequence[str],
    fused: BaseModel,
) -> tuple[float, float]:
    runtime = session(path, disabled=disabled)
    boxes = scores = 0.0
    for image, wanted in zip(images, expected, strict=True):
        found = runtime.run(None, {"images": image})
        shapes = [[output.shape for output in outputs] for outputs in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise DetpruneError(
                f"the ONNX file gives the shapes {shapes[0]} where PyTorch gives {shapes[1]}, so it "
                "was not written; try another opset or simplify=False"
            )
        pixels, others = _difference(found[0], wanted[0], fused, max(image.shape[2:]))
        others += [_gap(*pair).max() for pair in zip(found[1:], wanted[1:], strict=True)]
        boxes, scores = max(boxes, pixels), max(scores, *map(float, others))
    return boxes, scores


def _difference(
    found: Array, wanted: Array, fused: BaseModel, side: int
) -> tuple[float, list[float]]:
    """Differences of the first output: in pixels, and of the numbers that are no pixels.

    A box that is larger than the image, as untrained networks give them, counts in shares of its own size.
    """
    kind = kind_of(fused)
    if kind == CLASSIFY:
        return 0.0, [float(_gap(found, wanted).max())]
    head: Any = fused.model[-1]
    if kind == RTDETR or fused.end2end:  # a ranked list: score and class behind the box
        classes = 2
        found, wanted = _matched(found, wanted)
    else:
        classes = int(head.nc)
        found, wanted = (np.moveaxis(own, 1, 2) for own in (found, wanted))
    places = [found[..., :4], wanted[..., :4]]
    if kind == RTDETR:  # boxes in shares of the image
        places = [own * side for own in places]
    pixels = [_pixels(places[0], places[1], side)]
    extra = found[..., 4 + classes :], wanted[..., 4 + classes :]
    others = [float(_gap(found[..., 4 : 4 + classes], wanted[..., 4 : 4 + classes]).max(initial=0))]
    if kind == POSE:
        ours, theirs = (own.reshape(*own.shape[:-1], *head.kpt_shape) for own in extra)
        pixels.append(_pixels(ours[..., :2], theirs[..., :2], side))
        others.append(float(_gap(ours[..., 2:], theirs[..., 2:]).max(initial=0)))
    elif extra[0].size:
        others.append(float(_gap(*extra).max(initial=0)))
    return max(pixels), others


def _pixels(found: Array, wanted: Array, side: int) -> float:
    size = np.abs(wanted).max(axis=-1, keepdims=True, initial=0)
    gap = np.nan_to_num(np.abs(found - wanted), nan=np.inf) / np.maximum(1, size / side)
    return float(gap.max(initial=0))


def _gap(found: Array, wanted: Array) -> Array:
    largest = max(1.0, float(np.abs(wanted).max(initial=0)))
    return np.asarray(np.nan_to_num(np.abs(found - wanted), nan=np.inf) / largest, np.float32)


def _matched(found: Array, wanted: Array) -> tuple[Array, Array]:
    """Rows of a ranked list, (images, places, 4 + score + class + …), each beside the row that it stands for.

    The last places are left out where their score is that of the last one, for other boxes may have it too.
    """
    pairs: list[tuple[Array, Array]] = []
    for ours, theirs in zip(found, wanted, strict=True):
        edge = float(max(ours[-1, 4], theirs[-1, 4])) + 1e-5
        for row in ours[ours[:, 4] > edge]:
            apart = np.abs(theirs - row)
            apart[:, 5] *= 1e6  # the class is the same
            distance = apart[:, :4].max(axis=1) + 1e3 * apart[:, 4] + apart[:, 5]
            pairs.append((row, theirs[int(distance.argmin())]))
    if not pairs:
        return found, wanted
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])


def _channels(model: BaseModel) -> int:
    description: Any = model.yaml
    return int(description.get("channels", 3))
