# SPDX-License-Identifier: AGPL-3.0-or-later
"""Distillation: a dense detector teaches the one that is pruned.

The wrapped criterion keeps Ultralytics' three losses. It adds to each the same quantity with the teacher's
predictions in place of the labels: class scores by binary cross-entropy (Yang et al. 2023, "Bridging
cross-task protocol inconsistency for distillation in dense object detection"), the distribution of box
edges by the KL divergence (Zheng et al. 2022, "Localization distillation for dense object detection"), and
boxes by CIoU. All anchors count; in the box terms each is weighted by the teacher's confidence. Classifiers learn the
teacher's probabilities by the KL divergence.

Ultralytics' own ``distill_model`` compares features instead, through projections that are trained too, and
puts a model of its own around both networks.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.utils.loss import E2ELoss, v8ClassificationLoss, v8DetectionLoss
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import make_anchors

from detprune.errors import InputError
from detprune_yolo.kinds import CLASSIFY, RTDETR, kind_of
from detprune_yolo.weights.checkpoints import load_model

Predictions = dict[str, Any]


class TaughtCriterion:
    """Ultralytics' criterion mixed with the divergence from a teacher: (1 − weight) · loss + weight · divergence.

    Of a network that also gives masks, key points or angles, the terms of boxes and classes are taught, and those of
    masks, key points and angles stay the labels' alone. No module, so that the teacher is in no checkpoint, and copied
    or pickled as None, in whose place Ultralytics makes a criterion of its own.

    Args:
        network: the network that is trained; its criterion is wrapped.
        teacher: a network of the same task, classes and levels; it is frozen.
        weight: share of the teacher, 0 < weight ≤ 1.

    Raises:
        InputError: a teacher of other classes or levels, or a network whose criterion cannot be taught.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module, weight: float) -> None:
        self.criterion = getattr(network, "criterion", None) or network.init_criterion()  # type: ignore[operator]
        if not isinstance(self.criterion, (v8DetectionLoss, E2ELoss, v8ClassificationLoss)):
            raise InputError(
                f"distillation: the criterion is a {type(self.criterion).__name__}, which has no term that a teacher "
                "could give; leave the teacher out"
            )
        check_fits(network, teacher, "the teacher")
        self._teacher = teacher.eval().requires_grad_(False)
        self.weight = weight

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a vector of its terms times the batch size, and the same detached, per image."""
        loss, items = self.criterion(preds, batch)
        images = batch["img"]
        with torch.no_grad():
            _, taught = self._teacher(images)
        ours = preds[1] if isinstance(preds, tuple) else preds
        if isinstance(self.criterion, v8ClassificationLoss):
            own = _entropy(ours, taught)
            mixed = (1 - self.weight) * loss + self.weight * own
            return mixed, {"loss": mixed.detach()}
        if isinstance(self.criterion, E2ELoss):
            many = divergence(self.criterion.one2many, ours["one2many"], taught["one2many"])
            one = divergence(self.criterion.one2one, ours["one2one"], taught["one2one"])
            whole, shown = many * self.criterion.o2m + one * self.criterion.o2o, one
        else:
            whole = shown = divergence(self.criterion, ours, taught)
        # terms of boxes and classes are mixed, others stay
        places = [number for number, name in enumerate(items) if name in _TAUGHT]
        share = torch.ones_like(loss)
        share[places] = 1 - self.weight
        added, seen = torch.zeros_like(loss), torch.zeros_like(loss)
        added[places], seen[places] = whole.to(loss), shown.detach().to(loss)
        mixed = share * loss + self.weight * added * len(images)
        return mixed, {
            name: part * value + self.weight * own
            for (name, value), part, own in zip(items.items(), share, seen, strict=True)
        }

    def update(self) -> None:
        """Update the criterion after an epoch; Ultralytics calls it for end-to-end heads."""
        if isinstance(self.criterion, E2ELoss):
            self.criterion.update()


_TAUGHT = ("box_loss", "cls_loss", "dfl_loss", "l1_loss")


def _entropy(logits: Tensor, taught: Tensor) -> Tensor:
    """KL divergence of the classes' probabilities from the teacher's, the mean over the images (Hinton et al. 2015)."""
    own, their = (values.float().log_softmax(1) for values in (logits, taught))
    return functional.kl_div(own, their, reduction="batchmean", log_target=True)


def divergence(criterion: v8DetectionLoss, ours: Predictions, taught: Predictions) -> Tensor:
    """Divergence of predictions from the teacher's, per image: (box, cls, dfl), each times its gain.

    Args:
        criterion: Ultralytics' criterion, for the head's strides, decoding and gains.
        ours, taught: raw predictions: ``boxes``, (N, 4 · bins, anchors), ``scores``, (N, classes, anchors),
            and ``feats``.
    """
    edges, taught_edges = (p["boxes"].permute(0, 2, 1).float() for p in (ours, taught))
    scores, taught_scores = (p["scores"].permute(0, 2, 1).float() for p in (ours, taught))
    confidence = taught_scores.sigmoid()
    weights = confidence.amax(2)
    total = weights.sum().clamp(min=1)

    entropies = functional.binary_cross_entropy_with_logits(
        torch.stack((scores, taught_scores)), confidence.expand(2, -1, -1, -1), reduction="none"
    )
    classes = entropies[0] - entropies[1]  # zero where both agree
    if criterion.class_weights is not None:
        classes = classes * criterion.class_weights

    anchors, _ = make_anchors(ours["feats"], criterion.stride, 0.5)
    # of oriented boxes too as they are before they are turned
    boxes, taught_boxes = (
        v8DetectionLoss.bbox_decode(criterion, anchors, e) for e in (edges, taught_edges)
    )
    apart = 1 - bbox_iou(boxes, taught_boxes, xywh=False, CIoU=True).squeeze(2)

    bins = torch.zeros_like(weights)
    if criterion.use_dfl:
        own, their = (
            e.unflatten(2, (4, criterion.reg_max)).log_softmax(3) for e in (edges, taught_edges)
        )
        bins = functional.kl_div(own, their, reduction="none", log_target=True).sum(3).mean(2)

    gains = criterion.hyp
    return torch.stack(
        (
            gains.box * (apart * weights).sum(),
            gains.cls * classes.sum(),
            gains.dfl * (bins * weights).sum(),
        )
    ).div(total)


def teach(network: nn.Module, teacher: Path, weight: float, device: torch.device) -> None:
    """Give a network the criterion of ``TaughtCriterion``; the teacher is read from a checkpoint."""
    criterion = TaughtCriterion(network, load_model(teacher).to(device), weight)
    network.criterion = criterion  # type: ignore[assignment]


def check_fits(network: Any, teacher: Any, what: str) -> None:
    """Refuse a teacher whose predictions cannot be compared with the network's.

    Args:
        network, teacher: networks of Ultralytics.
        what: names the teacher.

    Raises:
        InputError: another head, other classes or channels, or weights that are no numbers.
    """
    kinds = kind_of(network, "the network"), kind_of(teacher, what)
    if kinds[0] != kinds[1] or kinds[0] == RTDETR:
        raise InputError(
            f"distillation: {what} is a network for {kinds[1].description()}, the pruned one is for "
            f"{kinds[0].description()}; a teacher has the same task, and RT-DETR has none: leave the teacher out"
        )
    ours, theirs = (_head_form(model) for model in (network, teacher))
    if ours != theirs:
        raise InputError(
            f"distillation: the teacher's head has {theirs}, that of the network {ours} ({what}); teach with "
            "the dense network from which the pruned one comes"
        )
    places = {str(name).strip().lower(): number for number, name in network.names.items()}
    for number, name in teacher.names.items():
        other = places.get(str(name).strip().lower(), number)
        if other != number:
            raise InputError(
                f"distillation: {what} has the class {name!r} as number {number}, the network as {other}; "
                "teach with a detector whose classes stand in the same order"
            )
    if bad := [name for name, p in teacher.named_parameters() if not bool(p.isfinite().all())]:
        raise InputError(
            f"distillation: {what} holds NaN or infinity in {len(bad)} weights, {bad[0]} first; give another file"
        )


def _head_form(model: nn.Module) -> str:
    head: Any = model.get_submodule("model")[-1]  # type: ignore[index]
    if kind_of(model) == CLASSIFY:
        return f"{len(model.names)} classes"  # type: ignore[arg-type]
    kind = "one-to-one and one-to-many" if getattr(head, "one2one_cv2", None) is not None else "one"
    first: Any = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    strides = ", ".join(f"{float(stride):g}" for stride in head.stride)
    return (
        f"{head.nc} classes, {head.nl} levels (strides {strides}), {head.reg_max} bins an edge, {kind} head, "
        f"{first.in_channels} input channels"
    )
