"""Stragglers: when, near the end of a job, a chunk of a slow worker is given to a second, faster one too."""

from __future__ import annotations

_MARGIN = 1.2


def seconds_left(passed: float, expected: float) -> float:
    """What a chunk in work still takes: what is left of the expected time, and once that is over, as much again as it is over.

    Args:
        passed: seconds since it began.
        expected: seconds that it takes.
    """
    return abs(expected - passed)


def worth_repeating(passed: float, expected: float, elsewhere: float) -> bool:
    """Whether another worker that is idle would be done clearly earlier (both results are the same; the first one counts).

    Args:
        passed, expected: seconds, of the worker that has the chunk.
        elsewhere: seconds that the idle worker takes for all of it.
    """
    return seconds_left(passed, expected) > _MARGIN * elsewhere
