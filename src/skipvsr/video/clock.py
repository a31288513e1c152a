"""Times: as people read them, and as exact numbers."""

from __future__ import annotations

from fractions import Fraction

# A time that came as a float is taken for the simplest fraction with a denominator up to this, so that 0.1 is 1/10.
_FINEST = 1_000_000


def clock(seconds: float | Fraction) -> str:
    """A time as minutes and seconds: 1:02.500."""
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(abs(float(seconds)), 60)
    return f"{sign}{int(minutes)}:{rest:06.3f}"


def seconds_as_fraction(seconds: float) -> Fraction:
    """The simplest fraction that is this near to a time: 0.1 + 0.2 is 3/10."""
    return Fraction(seconds).limit_denominator(_FINEST)
