# SPDX-License-Identifier: AGPL-3.0-or-later
"""The headline metric after hard pruning, measured during a training on a copy."""

from copy import copy
from pathlib import Path
from typing import Any

from torch import nn

from detprune_yolo.kinds import Kind, kind_of
from detprune_yolo.measure.collecting import collecting_validator
from detprune_yolo.measure.entries import read_json
from detprune_yolo.measure.truth import ground_truth_of
from detprune_yolo.measure.validation import Scores, compared
from detprune_yolo.process_state import quiet


def hard_pruned_metric(trainer: Any, network: nn.Module, annotations: Path | None) -> float:
    """The headline metric of a network on the trainer's validation images, in float32.

    Every rank calls it and validates its share of the images; the first one has the result, the
    others get 0.

    Args:
        trainer: an Ultralytics trainer between two epochs.
        network: a copy of its model.
        annotations: COCO annotations; made from the labels if left out.
    """
    kind = kind_of(network)
    validator = collecting_validator(kind)(
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
    return _scores(validator, stats, trainer, network, annotations, kind).of(kind)[
        kind.metrics[0].name
    ]


def _scores(
    validator: Any,
    stats: dict[str, float],
    trainer: Any,
    network: nn.Module,
    annotations: Path | None,
    kind: Kind,
) -> Scores:
    images = trainer.test_loader.dataset
    if not kind.coco_types:
        return Scores({}, stats, [], len(images))
    names: Any = network.names
    coco = None if annotations is None else read_json(annotations)
    truth, chosen = ground_truth_of(images.labels, names, coco, annotations, kind)
    by_type, predictions = compared(validator, truth, names, chosen, kind)
    return Scores(by_type, stats, predictions, len(images))
