"""The loss of lane detection against plain loops over its equations."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from detprune.errors import InputError
from detprune_lanes.losses import LaneLoss, focal_loss, shape_loss, similarity_loss

N, CELLS, ROWS, LANES = 2, 5, 6, 4


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(N, CELLS + 1, ROWS, LANES, dtype=torch.float64)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(CELLS + 1, (N, ROWS, LANES))


def entries() -> list[tuple[int, int, int]]:
    return [(n, row, lane) for n in range(N) for row in range(ROWS) for lane in range(LANES)]


def test_focal_loss(logits: Tensor, target: Tensor) -> None:
    total = 0.0
    for n, row, lane in entries():
        p = float(logits[n, :, row, lane].softmax(0)[target[n, row, lane]])
        total -= (1 - p) ** 2 * math.log(p)
    assert float(focal_loss(logits, target, 2.0)) == pytest.approx(total / (N * ROWS * LANES))
    plain = functional.cross_entropy(logits, target)
    assert float(focal_loss(logits, target, 0.0)) == pytest.approx(float(plain))


def test_similarity_of_adjacent_rows(logits: Tensor) -> None:
    values = []
    for n, row, lane in entries():
        if row + 1 < ROWS:
            change = (logits[n, :, row, lane] - logits[n, :, row + 1, lane]).abs()
            values += [float(d * d / 2 if d < 1 else d - 0.5) for d in change]
    assert float(similarity_loss(logits)) == pytest.approx(sum(values) / len(values))


def test_shape_is_the_second_difference_of_the_expected_cell(logits: Tensor) -> None:
    def cell(n: int, row: int, lane: int) -> float:
        scores = logits[n, :CELLS, row, lane].softmax(0)
        return sum(k * float(scores[k]) for k in range(CELLS))

    values = [
        abs(cell(n, row, lane) - 2 * cell(n, row + 1, lane) + cell(n, row + 2, lane))
        for n in range(N)
        for lane in range(LANES)
        for row in range(ROWS // 2 - 1)
    ]
    assert float(shape_loss(logits)) == pytest.approx(sum(values) / len(values))


def test_the_sum_has_the_originals_weights(logits: Tensor, target: Tensor) -> None:
    segmentation = torch.randn(N, LANES + 1, 3, 4, dtype=torch.float64)
    slots = torch.randint(LANES + 1, (N, 3, 4))
    terms = focal_loss(logits, target, 2.0) + similarity_loss(logits)
    assert float(LaneLoss()(logits, target)) == pytest.approx(float(terms))
    whole = terms + functional.cross_entropy(segmentation, slots)
    loss = LaneLoss()(logits, target, segmentation, slots)
    assert float(loss) == pytest.approx(float(whole))
    own = LaneLoss(gamma=0, similarity=0, shape=2.0, auxiliary=0)
    expected = functional.cross_entropy(logits, target) + 2 * shape_loss(logits)
    assert float(own(logits, target, segmentation, slots)) == pytest.approx(float(expected))


def test_a_perfect_prediction_costs_nothing_and_gradients_are_finite() -> None:
    target = torch.full((1, ROWS, LANES), 3)
    logits = torch.full((1, CELLS + 1, ROWS, LANES), -200.0)
    logits[:, 3] = 200.0
    logits.requires_grad_()
    loss = LaneLoss(shape=1.0)(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"loss\.similarity is -1; allowed is a number from 0"):
        LaneLoss(similarity=-1)
