"""Server-sent events: every page of a person hears when something of theirs has changed."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

# At most so often, however fast a job goes; and a sign of life, by which broken connections are noticed.
_PAUSE_SECONDS = 0.25
_SILENCE_SECONDS = 15.0


class Changes:
    """Counts changes by person, and wakes whoever waits for one."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._wake = asyncio.Event()
        self.closed = False

    def tell(self, person: str) -> None:
        """Something of a person's has changed."""
        self._counts[person] += 1
        self._wake.set()
        self._wake = asyncio.Event()

    def close(self) -> None:
        """End all streams: the server stops."""
        self.closed = True
        self._wake.set()

    async def stream(self, person: str, state: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
        """The person's state as events: now, and after each change."""
        seen = -1
        while not self.closed:
            wake = self._wake
            if self._counts[person] != seen:
                seen = self._counts[person]
                yield f"event: state\ndata: {json.dumps(state())}\n\n"
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            try:
                await asyncio.wait_for(wake.wait(), _SILENCE_SECONDS)
            except TimeoutError:
                yield ": still here\n\n"
