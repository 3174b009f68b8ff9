"""Two programs timed in turn: the machine's other load slows both, so that their ratio stays."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Program = Callable[[], object]
Clock = Callable[[], float]

_SHORTEST = (
    0.02  # seconds of one timing, so that the clock's resolution and the first call weigh little
)
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call in every round, of each program."""

    rounds: tuple[tuple[float, ...], ...]

    def median(self, program: int) -> float:
        """Milliseconds of one call of a program, as median of all rounds."""
        return statistics.median(times[program] for times in self.rounds)

    def ratios(self) -> tuple[float, float, float]:
        """Quartiles over the rounds of the second program's time divided by the first's; the second is the median."""
        ratios = [times[1] / times[0] for times in self.rounds]
        first, middle, third = statistics.quantiles(ratios, n=4, method="inclusive")
        return first, middle, third


def in_turn(
    programs: tuple[Program, ...],
    *,
    rounds: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> Times:
    """Time one or two programs round by round; they take turns in which one is first.

    Args:
        programs: each returns when its work is done.
        rounds: most rounds; there are at least three.
        seconds: time by the clock, after which no further round starts.
        clock: gives seconds; ``time.process_time`` leaves out what other processes take of the processor.
    """
    calls = [_calls_per_timing(program, clock) for program in programs]
    order = list(range(len(programs)))
    found: list[tuple[float, ...]] = []
    began = clock()
    while len(found) < max(rounds, _LEAST_ROUNDS):
        if len(found) >= _LEAST_ROUNDS and clock() - began > seconds:
            break
        times = [0.0] * len(programs)
        for number in order:
            times[number] = 1000 * _seconds(programs[number], calls[number], clock)
        found.append(tuple(times))
        order.reverse()
    return Times(tuple(found))


def _calls_per_timing(program: Program, clock: Clock) -> int:
    for _ in range(2):  # the first call sets up what later ones use
        took = _seconds(program, 1, clock)
    return max(1, round(_SHORTEST / max(took, 1e-6)))


def _seconds(program: Program, calls: int, clock: Clock) -> float:
    began = clock()
    for _ in range(calls):
        program()
    return (clock() - began) / calls
