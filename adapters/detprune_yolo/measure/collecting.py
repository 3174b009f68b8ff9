# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' validators, which also keep their predictions for pycocotools, and trust no cache."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.data.utils import get_split_fraction
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils import ops

from detprune.errors import InputError
from detprune_yolo.data.building import build_images
from detprune_yolo.kinds import DETECT, Kind


class _Collecting(BaseValidator):  # type: ignore[misc]
    """Goes before Ultralytics' validator of a kind; predictions are in ``jdict``, as it would write them to a file.

    Its own ``save_json`` also scores them, with a package that it installs.
    """

    kind: Kind = DETECT

    def build_dataset(self, img_path: Any, mode: str = "val", batch: int | None = None) -> Any:
        """The images, without Ultralytics' caches."""
        fraction = get_split_fraction(self.args.fraction, self.args.split or "val")
        stride = getattr(self, "stride", 32)
        try:
            return build_images(
                self.args,
                img_path,
                batch,
                self.data,
                self.kind,
                mode=mode,
                stride=stride,
                fraction=fraction,
            )
        except (FileNotFoundError, RuntimeError) as error:
            raise InputError(f"{self.args.data}: {error}") from error

    def init_metrics(self, model: nn.Module) -> None:
        self.args.save_json = False
        super().init_metrics(model)
        if self.kind.coco_types:
            # a path that looks like COCO's switches on save_json, and COCO's own numbering of classes
            self.args.save_json = False
            self.class_map = list(range(1, len(model.names) + 1))  # type: ignore[arg-type]

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """NMS of one image at a time: on whole batches it gives up after some seconds, with nothing found."""
        output = preds[0] if isinstance(preds, list | tuple) else preds
        stock = super().postprocess
        return [found for image in output.split(1) for found in stock(image)]

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        super().update_metrics(preds, batch)
        if not self.kind.coco_types:
            return
        for index, found in enumerate(preds):
            image = self._prepare_batch(index, batch)
            # Ultralytics takes a numeric stem for the id; images are found by file_name afterwards
            name = Path(image["im_file"]).name
            start = len(self.jdict)
            if len(found["cls"]):
                scaled = self.scale_preds(self.for_coco(found, image), image)
                self.pred_to_json(scaled, {**image, "im_file": "image.jpg"})
            for entry in self.jdict[start:]:
                left, top, *sides = entry.pop("bbox")
                # yolo26's boxes, of four plain numbers, may have their right side on the left
                entry["bbox"] = [left, top, *(max(side, 0.0) for side in sides)]
                entry.update(image_id=Path(name).stem, file_name=name)

    def for_coco(self, found: dict[str, Tensor], image: dict[str, Any]) -> dict[str, Tensor]:
        """The predictions of an image, as exact as pycocotools compares them."""
        return found

    def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
        return stats


class _CollectingMasks(_Collecting):
    """Ultralytics compares masks at a quarter of the resolution; COCO's numbers are those of whole masks."""

    _parts: tuple[Tensor, Tensor] | None = None

    def init_metrics(self, model: nn.Module) -> None:
        super().init_metrics(model)
        self.process = self._coarse

    def _coarse(self, proto: Tensor, coefficients: Tensor, bboxes: Tensor, shape: Any) -> Tensor:
        self._parts = proto, coefficients
        masks: Tensor = ops.process_mask(proto, coefficients, bboxes, shape=shape)
        return masks

    def postprocess(self, preds: Any) -> list[dict[str, Any]]:
        outputs, proto = preds[0] if isinstance(preds[0], tuple) else preds
        found = []
        for own, own_proto in zip(outputs.split(1), proto.split(1), strict=True):
            (one,) = super(_Collecting, self).postprocess(((own, own_proto), None))
            found.append({**one, "parts": self._parts})
        return found

    def for_coco(self, found: dict[str, Any], image: dict[str, Any]) -> dict[str, Tensor]:
        proto, coefficients = found["parts"]
        shape = tuple(image["imgsz"])
        whole = ops.process_mask_native(proto, coefficients, found["bboxes"], shape=shape)
        return {**found, "masks": whole}


class _CollectingPoses(_Collecting):
    """COCO's key points have a third number; where the data set's have two, it is 1."""

    def for_coco(self, found: dict[str, Tensor], image: dict[str, Any]) -> dict[str, Tensor]:
        points = found["keypoints"]
        if points.shape[-1] == 2:
            points = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
        return {**found, "keypoints": points}


class _CollectingClasses(_Collecting):
    """A classifier has one prediction per image, and nothing for pycocotools."""

    def postprocess(self, preds: Any) -> Any:
        return super(_Collecting, self).postprocess(preds)


_BEFORE = {
    "boxes": _Collecting,
    "polygons": _CollectingMasks,
    "keypoints": _CollectingPoses,
    "corners": _Collecting,
    "folders": _CollectingClasses,
}


@cache
def collecting_validator(kind: Kind) -> Any:
    """The class of the validator of a kind."""
    first = _BEFORE[kind.labels]
    return type(f"Collecting{kind.validator.__name__}", (first, kind.validator), {"kind": kind})
