# SPDX-License-Identifier: AGPL-3.0-or-later
"""mAP@0.5 after hard pruning, measured during a training on a copy."""

from copy import copy
from pathlib import Path
from typing import Any

from torch import nn

from detprune_yolo.measure.coco import evaluate, remap
from detprune_yolo.measure.entries import read_json
from detprune_yolo.measure.validation import CollectingValidator, ground_truth_of
from detprune_yolo.process_state import quiet


def hard_pruned_map50(trainer: Any, network: nn.Module, annotations: Path | None) -> float:
    """pycocotools' mAP@0.5 of a network on the trainer's validation images, in float32.

    Every rank calls it and validates its share of the images; the first one has the result, the
    others get 0.

    Args:
        trainer: an Ultralytics trainer between two epochs.
        network: a copy of its model.
        annotations: COCO annotations; made from the labels if left out.
    """
    validator = CollectingValidator(
        trainer.test_loader, save_dir=trainer.save_dir, args=copy(trainer.args)
    )
    validator.args.plots = False
    held = trainer.ema.ema, trainer.amp
    trainer.ema.ema, trainer.amp = network, False
    try:
        with quiet():
            stats = validator(trainer)
    finally:
        trainer.ema.ema, trainer.amp = held
    if stats is None:
        return 0.0
    names: Any = network.names
    coco = None if annotations is None else read_json(annotations)
    labels = trainer.test_loader.dataset.labels
    truth, chosen = ground_truth_of(labels, names, coco, annotations)
    found: Any = validator.jdict
    return evaluate(truth, remap(found, truth, names), image_ids=chosen).map50
