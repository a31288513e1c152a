"""Reading ahead and writing behind: decoding and encoding in threads of their own, with short queues between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

Item = TypeVar("Item")

DEPTH = 4


def read_ahead(source: Iterable[Item], executor: Executor, depth: int = DEPTH) -> Iterator[Item]:
    """Iterate over `source` in the executor, `depth` items ahead.

    Args:
        source: iterated in the executor's thread only.
        executor: of one thread, so that items keep their order.
        depth: items taken before they are asked for.

    Raises:
        Whatever the source raises, after all items that came before it.
    """
    iterator = iter(source)
    end: Any = object()
    pending = deque(executor.submit(next, iterator, end) for _ in range(depth))
    while (item := pending.popleft().result()) is not end:
        pending.append(executor.submit(next, iterator, end))
        yield item


def map_ahead(
    function: Callable[[Any], Item], arguments: Iterable[Any], executor: Executor, depth: int = DEPTH
) -> Iterator[Item]:
    """The function of each argument, in order, computed in the executor, `depth` of them ahead.

    Args:
        function: called in the executor's threads, several at once where it has several.
        arguments: iterated in the caller's thread.
        executor: of any number of threads.
        depth: results computed before they are asked for.

    Raises:
        Whatever the function raises, after all results that came before it.
    """
    pending: deque[Future[Item]] = deque()
    for argument in arguments:
        pending.append(executor.submit(function, argument))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


class WriteBehind:
    """Call `write` in the executor, at most `depth` items behind.

    Args:
        write: called on one item at a time, in order.
        executor: of one thread.
        depth: items waiting before the caller has to wait too.
    """

    def __init__(self, write: Callable[[Any], None], executor: Executor, depth: int = DEPTH) -> None:
        self._write = write
        self._executor = executor
        self._depth = depth
        self._pending: deque[Future[None]] = deque()

    def put(self, item: Any) -> None:
        """Queue an item; raises what an earlier `write` raised."""
        if len(self._pending) >= self._depth:
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(self._write, item))

    def finish(self, seconds: float | None = None) -> bool:
        """Wait until all is written, or so long; whether it is. Raises what a `write` raised."""
        wait(self._pending, seconds)
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        return not self._pending
