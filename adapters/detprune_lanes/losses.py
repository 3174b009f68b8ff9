"""The loss of Ultra-Fast-Lane-Detection (Qin et al., ECCV 2020, equations 2 to 9).

Where the original repository and the paper differ, the repository is followed: a softmax focal loss in place
of the cross entropy of equation 2, and smooth l1 in place of l1 in equation 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from detprune.errors import InputError


@dataclass(frozen=True)
class LaneLoss:
    """Weights of the terms of the loss; the defaults are the original's for TuSimple.

    Attributes:
        gamma: exponent of the focal loss.
        similarity: weight of the similarity of adjacent rows.
        shape: weight of the second differences of the expected position.
        auxiliary: weight of the cross entropy of the segmentation branch.
    """

    gamma: float = 2.0
    similarity: float = 1.0
    shape: float = 0.0
    auxiliary: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise InputError(f"loss.{name} is {value}; allowed is a number from 0 up")

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        segmentation: Tensor | None = None,
        segmentation_target: Tensor | None = None,
    ) -> Tensor:
        """The sum of the terms.

        Args:
            logits: (N, cells + 1, rows, lanes).
            target: cell numbers, (N, rows, lanes); ``cells`` where there is no lane.
            segmentation: logits of the auxiliary branch, (N, lanes + 1, h, w), if it has one.
            segmentation_target: slot numbers, (N, h, w), 0 for the background.
        """
        loss = focal_loss(logits, target, self.gamma)
        if self.similarity:
            loss = loss + self.similarity * similarity_loss(logits)
        if self.shape:
            loss = loss + self.shape * shape_loss(logits)
        if self.auxiliary and segmentation is not None:
            if segmentation_target is None:
                raise ValueError("the segmentation branch has no target")
            loss = loss + self.auxiliary * functional.cross_entropy(
                segmentation, segmentation_target
            )
        return loss


def focal_loss(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Mean of −(1 − p)^γ log p, p the softmax probability of the target's cell."""
    log_scores = functional.log_softmax(logits, dim=1)
    return functional.nll_loss((1 - log_scores.exp()).pow(gamma) * log_scores, target)


def similarity_loss(logits: Tensor) -> Tensor:
    """Smooth l1 norm of the differences between adjacent rows, per entry (equation 4)."""
    difference = logits[:, :, :-1] - logits[:, :, 1:]
    return functional.smooth_l1_loss(difference, torch.zeros_like(difference))


def shape_loss(logits: Tensor) -> Tensor:
    """Mean second difference of the expected cell down the upper half of the rows (equations 5 to 7)."""
    rows = logits.shape[2]
    scores = logits[:, :-1].softmax(dim=1)
    cells = torch.arange(scores.shape[1], device=logits.device, dtype=logits.dtype)
    position = torch.einsum("ncrl,c->nrl", scores, cells)
    change = position[:, : rows // 2] - position[:, 1 : rows // 2 + 1]
    return (change[:, :-1] - change[:, 1:]).abs().mean()
