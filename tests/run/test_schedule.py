"""How many outer iterations a run has."""

import pytest

from detprune.run.schedule import outer_iterations


@pytest.mark.parametrize(
    ("epochs", "steps", "every", "expected"),
    [
        (40, 4000, None, 40),  # one per epoch
        (5, 190, None, 20),  # a short run has 20
        (3, 12, None, 3),  # unless they would have fewer than four steps
        (5, 48, None, 12),
        (5, 190, 0.25, 20),
        (5, 190, 2, 2),  # divided evenly
        (5, 190, 100, 1),
        (5, 190, 0.001, 190),
        (1, 1, None, 1),
    ],
)
def test_outer_iterations(epochs: int, steps: int, every: float | None, expected: int) -> None:
    assert outer_iterations(epochs, steps, every) == expected
