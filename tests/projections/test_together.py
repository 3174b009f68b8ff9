"""Selection in many small tensors at once, against selection one by one."""

import pytest
import torch
from torch import Tensor

from detprune.projections import largest, largest_of_each, together

TENSORS: list[Tensor] = [
    torch.randn(7, 5, 3, 3),
    torch.randint(-3, 4, (40, 11)).float(),
    torch.zeros(17),
    torch.tensor([1.0, -float("inf"), float("nan"), 3e-45, -0.0, 0.0, 3.4e38]),
    torch.randn(64, 9).half(),
    torch.randn(50, 3, 3, 3).bfloat16().to(memory_format=torch.channels_last),
    torch.randn(1),
    torch.randn(30).double(),
]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("at_once", [20, 700, 1 << 22])
def test_selects_as_one_by_one(share: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_TOGETHER", at_once)
    counts = [round(share * value.numel()) for value in TENSORS]
    found = largest_of_each(TENSORS, counts)
    for value, count, mask in zip(TENSORS, counts, found, strict=True):
        assert torch.equal(mask, largest([value], count)[0])
        assert mask.shape == value.shape


def test_large_tensors_and_wide_ones_are_ranked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_SMALL", 100)
    ranked: list[int] = []
    original = together._sorted_together

    def noted(values: list[Tensor], counts: list[int]) -> list[Tensor]:
        ranked.extend(value.numel() for value in values)
        return original(values, counts)

    monkeypatch.setattr(together, "_sorted_together", noted)
    counts = [max(1, value.numel() // 2) for value in TENSORS]
    found = largest_of_each(TENSORS, counts)
    assert ranked == [17, 7]  # neither of one entry, nor of float64
    assert [int(mask.sum()) for mask in found] == counts
