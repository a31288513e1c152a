"""Calls of Ray actors that are under way, and what is done with their results when they are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OwnerDiedError, RayError


class Calls:
    """Pending calls of Ray actors, and the function that handles each result."""

    def __init__(self) -> None:
        self._pending: dict[Any, Callable[[Any], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def then(self, reference: Any, handle: Callable[[Any], None]) -> None:
        """Have `handle` called with the result when it is there, or with the RayError in its place."""
        self._pending[reference] = handle

    def wait(self, seconds: float) -> None:
        """Wait for a result, so long at most, and handle it."""
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=seconds, fetch_local=False)
        for reference in done:
            self._pending.pop(reference)(_fetched(reference))


def lost_frames(error: RayError) -> bool:
    """Whether a worker failed because the frames went with their reader."""
    lost = ObjectLostError | OwnerDiedError
    return isinstance(error, lost) or isinstance(getattr(error, "cause", None), lost)


def in_one_line(error: BaseException) -> str:
    """The message of an error of Ray, which has many lines."""
    return " ".join(str(error).split())[:300]


def _fetched(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        return error
