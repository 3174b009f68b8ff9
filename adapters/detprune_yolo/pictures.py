# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of predictions for the report: one row per image, the labels beside the predictions of each model.

Ultralytics predicts and draws boxes, masks and key points; only the choice of the images and the sheet are made here.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional
from ultralytics.engine.results import Results
from ultralytics.utils.checks import check_font
from ultralytics.utils.ops import make_divisible

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune_yolo.data.examples import Example, Pixels, choose_examples, data_set
from detprune_yolo.kinds import DETECT, kind_of
from detprune_yolo.process_state import as_before, quiet

SHEET = "detections.jpg"

# The page shows the sheet at about half its width, hence the large type.
_WIDTH, _LARGEST_CELL, _GAP = 1800, 640, 12
_HEADER, _STRIP, _TITLE_SIZE, _STRIP_SIZE, _LABEL_SIZE, _LINE = 44, 32, 26, 20, 20, 3
_BYTES = 1_400_000


def detection_pictures(
    models: Mapping[str, nn.Module],
    data_yaml: Path,
    out: Path,
    *,
    imgsz: int,
    images: int = 4,
    split: str = "val",
    conf: float = 0.25,
    device: torch.device | str | int | None = None,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Draw labels and predictions side by side into ``out/detections.jpg``.

    The images are spread over the split, those with about four labelled objects first, and are the
    same for the same data and ``seed``. The models are copied, never changed, random states stay as
    they are, and nothing else is written.

    Args:
        models: column title → network of Ultralytics, in the order of the columns; all of one kind.
        data_yaml: Ultralytics' description of the data set; for classification its folder.
        out: folder, made if it is missing.
        imgsz: side in pixels to which images are fitted, rounded up to the model's stride.
        images: number of rows; fewer if the split has fewer images that can be read.
        conf: lowest confidence, from 0 to 1, of a box that is drawn.
        device: device of the predictions; by default that of each model.

    Returns:
        One mapping with ``file``, ``title`` and ``caption`` per picture.

    Raises:
        InputError: ``images`` is below 1, or the data set, its split or its images cannot be used.
    """
    if images < 1:
        raise InputError(f"images is {images}; a picture needs at least 1")
    kind = next((kind_of(model) for model in models.values()), DETECT)
    with quiet():
        data = data_set(Path(data_yaml), split, kind)
    examples = choose_examples(data, split, images, seed, kind)
    if not examples:
        raise InputError(
            f"the split {split!r} of {data_yaml} has no image that can be read, with labels that "
            "can be used; check the paths in that file"
        )
    truth = [_truth(example, data["names"]) for example in examples]
    columns = {"ground truth": truth}
    for title, model in models.items():
        columns[title] = []
        for example, found in zip(
            examples, _detect(model, examples, imgsz, conf, device), strict=True
        ):
            names = {**found.names, **data["names"]}
            columns[title].append(_result(example.pixels, names, **_parts(found)))
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / SHEET) as temporary:
        temporary.write_bytes(_compressed(_sheet(columns, [e.file.name for e in examples])))
    caption = f"{len(examples)} images of the {split} split, spread over it"
    if kind.labels == "folders":
        caption += "; the number behind the class is its probability."
        return [{"file": SHEET, "title": "Classes before and after pruning", "caption": caption}]
    caption += (
        f", those with several labelled objects preferred. Boxes of a confidence of at least {conf:g} are drawn; the "
        "number behind the class is the confidence."
    )
    return [{"file": SHEET, "title": "Detections before and after pruning", "caption": caption}]


# ---------------------------------------------------------------- detections


def _detect(
    model: nn.Module,
    examples: Sequence[Example],
    imgsz: int,
    conf: float,
    device: torch.device | str | int | None,
) -> list[Any]:
    """Return Ultralytics' ``Results`` of each image."""
    home = next(model.parameters()).device
    stride = max(int(model.stride.max()), 32) if isinstance(model.stride, torch.Tensor) else 32
    overrides = {
        "conf": conf,
        "imgsz": make_divisible(imgsz, stride),
        "device": str(home if device is None else device),
        "rect": False,  # one size for all images, so that they are one batch
        "save": False,
        "verbose": False,
        "retina_masks": True,  # masks of the image's size
        "nms": False if getattr(model, "end2end", False) else None,
    }
    with as_before(home):
        predictor = kind_of(model).predictor(overrides=overrides)
        predictor.setup_model(model, verbose=False)  # ``model`` is a deep copy
        found: list[Any] = predictor([example.pixels for example in examples])
    return found


# ---------------------------------------------------------------- the sheet


def _result(pixels: Pixels, names: Mapping[int, str], **parts: torch.Tensor) -> Any:
    return Results(pixels, path="", names=dict(names), **parts)


def _truth(example: Example, names: Mapping[int, str]) -> Any:
    """The labels of an image as if they were predictions."""
    parts = dict(example.shapes)
    if not {"obb", "probs"} & {*parts}:
        parts["boxes"] = example.boxes
    return _result(example.pixels, names, **parts)


def _parts(found: Any) -> dict[str, torch.Tensor]:
    """Boxes, masks, key points, rotated boxes and probabilities of ``Results``, as far as there are some."""
    names = ("boxes", "masks", "keypoints", "obb", "probs")
    held = {name: getattr(found, name) for name in names}
    return {name: own.data.cpu().clone() for name, own in held.items() if own is not None}


def _sheet(columns: Mapping[str, Sequence[Any]], files: Sequence[str]) -> Image.Image:
    cell = min(_LARGEST_CELL, (_WIDTH - _GAP) // len(columns) - _GAP)
    rows = [
        [_drawn(result, cell, confidence=column > 0) for column, result in enumerate(row)]
        for row in zip(*columns.values(), strict=True)
    ]
    height = _HEADER + sum(row[0].height + _STRIP + _GAP for row in rows)
    sheet = Image.new("RGB", (_GAP + len(columns) * (cell + _GAP), height), "white")
    draw = ImageDraw.Draw(sheet)
    font = str(check_font("Arial.ttf"))
    title_font = ImageFont.truetype(font, _TITLE_SIZE)
    strip_font = ImageFont.truetype(font, _STRIP_SIZE)
    for column, title in enumerate(columns):
        left = _GAP + column * (cell + _GAP)
        draw.text((left + cell // 2, _HEADER // 2), title, "#1F2937", title_font, anchor="mm")
        top = _HEADER
        for row, file, result in zip(rows, files, columns[title], strict=True):
            picture = row[column]
            sheet.paste(picture, (left + (cell - picture.width) // 2, top))
            top += picture.height
            short = file if len(file) <= 24 else f"{file[:11]}…{file[-12:]}"
            text = ("" if column else f"{short}: ") + _described(result, truth=column == 0)
            draw.text((left + cell // 2, top + 3), text, "#5B6472", strip_font, anchor="ma")
            top += _STRIP + _GAP
    return sheet


def _described(result: Any, truth: bool) -> str:
    """How many objects there are, or the class of the whole image."""
    if result.probs is not None:
        name = result.names[result.probs.top1]
        return name if truth else f"{name} {float(result.probs.top1conf):.2f}"
    kind = "object" if truth else "detection"
    return f"{len(result) or 'no'} {kind}" + ("" if len(result) == 1 else "s")


def _drawn(result: Any, side: int, confidence: bool) -> Image.Image:
    """Draw a result onto the image in its final size: text scaled with the image would be unreadable."""
    height, width = result.orig_shape
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    pixels = cv2.resize(
        result.orig_img, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    parts = _parts(result)
    parts.pop("probs", None)
    factors = torch.tensor([size[0] / width, size[1] / height])
    if "boxes" in parts:
        parts["boxes"][:, :4] *= factors.repeat(2)
        # yolo26's boxes, of four plain numbers, may have their right side on the left
        parts["boxes"][:, 2:4] = parts["boxes"][:, 2:4].maximum(parts["boxes"][:, :2])
    if "obb" in parts:
        parts["obb"][:, :4] *= factors.repeat(2)  # both are equal, but for rounding
    if "keypoints" in parts:
        parts["keypoints"][..., :2] *= factors
    if "masks" in parts:
        masks = parts["masks"][None].float()
        parts["masks"] = functional.interpolate(masks, size[::-1])[0]
    picture: Image.Image = _result(pixels, result.names, **parts).plot(
        conf=confidence, pil=True, line_width=_LINE, font_size=_LABEL_SIZE
    )
    return picture


def _compressed(sheet: Image.Image) -> bytes:
    """Return the sheet as JPEG, at a lower quality if the file would be too large for the page."""
    for quality in (90, 80, 65, 45):
        buffer = io.BytesIO()
        # No chroma subsampling: it blurs thin coloured boxes and small type.
        sheet.save(buffer, "JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= _BYTES:
            break
    return buffer.getvalue()
