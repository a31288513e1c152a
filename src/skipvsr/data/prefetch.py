"""Batches drawn ahead of the network, and how long it had to wait for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Iterator[Item], Generic[Item]):
    """Iterates over `draw(step) for step in steps`, in order, drawing ahead in threads.

    Threads are enough: decoding, resizing and copying all run outside Python's lock. Close it, or use it as a context
    manager, to let the threads go before the last step.

    Args:
        draw: such as `CropSampler.batch`; must be safe to call from several threads.
        steps: what to call it with.
        workers: threads; 0 draws in the caller's own, when asked.
        ahead: how many batches may be ready or in work at a time.

    Attributes:
        waited_seconds: how long `next` has kept the caller waiting, in all.
    """

    def __init__(self, draw: Callable[[int], Item], steps: Iterable[int], *, workers: int = 1, ahead: int = 2) -> None:
        self.waited_seconds = 0.0
        self._draw = draw
        self._steps = iter(steps)
        self._ahead = max(ahead, workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="skipvsr-data") if workers else None
        self._drawn: deque[Future[Item]] = deque()

    def __next__(self) -> Item:
        """The next batch; raises what drawing it raised."""
        began = time.perf_counter()
        try:
            if self._pool is None:
                return self._draw(next(self._steps))
            self._submit(self._pool)
            if not self._drawn:
                raise StopIteration
            item = self._drawn.popleft().result()
            self._submit(self._pool)
            return item
        finally:
            self.waited_seconds += time.perf_counter() - began

    def close(self) -> None:
        """Let the threads end after what they are at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetch[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        while len(self._drawn) < self._ahead:
            step = next(self._steps, None)
            if step is None:
                return
            self._drawn.append(pool.submit(self._draw, step))
