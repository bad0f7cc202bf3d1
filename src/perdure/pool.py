"""The one pool of threads: work that releases the interpreter lock, bounded in memory.

Hashing, compressing, sealing and system calls run in parallel; the rest of Perdure is sequential
and knows threads only as futures.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

IN_FLIGHT = 24 << 20
"""Bytes of content that may wait or be worked on at once."""

_SWITCH_INTERVAL = 0.0005
"""Seconds that a thread in Python code may keep the others waiting."""
_MALLOC_PARAMETERS = ((-1, (1 << 31) - 1), (-3, 1 << 30), (-8, 1))
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD as high as can be, M_ARENA_MAX 1 (malloc.h of glibc)."""


@functools.cache
def _tune_process() -> None:
    """Arrange the process for threads that work on blocks of some megabytes.

    A thread whose call is done gets the interpreter soon. Blocks are used again instead of given back to
    the system and zeroed anew, and all threads share one arena, so that what one has freed another can
    take; where the C library is not glibc, memory stays as it is. docs/decisions/0005 has the figures.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in _MALLOC_PARAMETERS:
        mallopt(parameter, value)


class Pool:
    """Threads, and a limit to what waits for them."""

    def __init__(self, workers: int | None = None, limit: int = IN_FLIGHT) -> None:
        _tune_process()
        self._executor = ThreadPoolExecutor(workers or os.cpu_count() or 1, "perdure")
        self._limit = limit
        self._pending = 0
        self._changed = threading.Condition()

    def submit(self, cost: int, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        """Run ``work(job)`` soon; waits while ``cost`` (bytes) does not fit under the limit."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._pending + cost <= self._limit)
            self._pending += cost
        try:
            return self._executor.submit(self._run, cost, work, job)
        except RuntimeError:
            self._release(cost)
            raise

    def _run(self, cost: int, work: Callable[[Job], Result], job: Job) -> Result:
        try:
            return work(job)
        finally:
            self._release(cost)

    def _release(self, cost: int) -> None:
        with self._changed:
            self._pending -= cost
            self._changed.notify_all()

    def in_order(
        self, work: Callable[[Job], Result], jobs: Iterable[tuple[int, Job]]
    ) -> Iterator[Result]:
        """Give ``work(job)`` for each (cost, job), in order, working ahead up to the limit."""
        ahead: deque[tuple[int, Future[Result]]] = deque()
        waiting = 0
        try:
            for cost, job in jobs:
                while ahead and waiting + cost > self._limit:
                    done, future = ahead.popleft()
                    yield future.result()
                    waiting -= done
                ahead.append((cost, self._executor.submit(work, job)))
                waiting += cost
            while ahead:
                yield ahead.popleft()[1].result()
        finally:
            for _, future in ahead:
                future.cancel()

    def close(self) -> None:
        """Wait for the threads to end; what has not begun is dropped."""
        self._executor.shutdown(cancel_futures=True)
