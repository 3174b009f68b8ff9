"""A pull through the gradient of SGD: the coefficients that give each step its share of the pull.

SGD's momentum keeps what earlier steps put in, and applies it at the learning rate of each later step.

Write P for the part of the momentum buffer that comes from the penalty, and W − A for the gap before a step.
The penalty alone, at coefficient c, gives P ← m·P + (1 − dampening)·c·(W − A), W ← W − lr·P (Nesterov: W −
lr·(c·(W − A) + m·P)). If every step takes the share q of the gap away, P stays a multiple b of it, with

    b ← m/(1 − q)·b + (1 − dampening)·c,

and c can be chosen at each step so that lr·b = q, at any learning rate. Two bounds keep this stable where the task's
gradient moves W as well. The part of the share that they cut off is left to the proximal map after the step:
- q through the gradient is at most 1 − √m. No faster pull through a momentum of m decays; it swings past A.
- c is at most (1 − m)·q over the highest learning rate that was seen or that the schedule has announced, the c of
  a constant learning rate. Without this bound b would grow as 1/lr while lr is low, and the large momentum would
  throw W far past A when lr rises again.
"""

import math
from dataclasses import dataclass

from detprune.methods.base import Rate


@dataclass(frozen=True)
class Pulled:
    """Result for one step: the coefficient c for the gradient, b after the step, and the share left over."""

    coefficient: float
    held: float
    rest: float


def pull_through_momentum(rate: Rate, share: float, held: float, highest: float) -> Pulled:
    """Split the share q of W − A between the gradient and the proximal map.

    Args:
        rate: learning rate and momentum of the weight at this step.
        share: q, from 0 to 1.
        held: b after the previous step.
        highest: the highest learning rate so far.
    """
    m, lr = rate.momentum or 0.0, rate.learning_rate
    fresh = 1.0 - (
        rate.dampening if rate.started else 0.0
    )  # SGD's first step fills an empty buffer without dampening
    if not (highest > 0 and fresh > 0 and m < 1):
        return Pulled(0.0, 0.0, share)
    through = min(share, 1 - math.sqrt(m)) if m else share
    carried = m * held / (1 - share) if rate.started else 0.0
    added = (1 - m) * through / highest
    if lr > 0:
        added = min(
            added,
            (through / lr - m * carried) / (1 + m) if rate.nesterov else through / lr - carried,
        )
    held = carried + added
    moved = lr * (added + m * held) if rate.nesterov else lr * held
    rest = 1 - (1 - share) / (1 - moved) if moved < share else 0.0
    return Pulled(rate.sign * added / fresh, held, rest)
