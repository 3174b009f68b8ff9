"""The number of outer iterations of constrained training."""

USUAL = 20
"""Outer iterations of a short run: with five, W did not come near Z; twenty were enough (docs/results.md)."""
_LEAST_STEPS = 4


def outer_iterations(epochs: int, steps: int, every: float | None) -> int:
    """Number of outer iterations of a run.

    Args:
        epochs, steps: its length, the latter in optimizer steps.
        every: epochs per outer iteration. None: one per epoch, and in runs of fewer than 20 epochs 20, as long
            as each has four steps.

    Returns:
        At least 1, and not more than there are steps.
    """
    usual = max(epochs, min(USUAL, steps // _LEAST_STEPS))
    wanted = usual if every is None else round(epochs / every)
    return max(1, min(wanted, steps))
