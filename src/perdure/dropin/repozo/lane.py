"""Work that goes on beside the main thread, one job after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from perdure.pool import Pool

Job = TypeVar("Job")
_WAITING = 4 << 20
"""Bytes that may wait for one lane."""


class Lane:
    """A thread for jobs that must be done in order; an error of one comes out at the next call."""

    def __init__(self) -> None:
        self._pool = Pool(1, _WAITING)
        self._jobs: deque[Future[object]] = deque()

    def submit(self, cost: int, work: Callable[[Job], object], job: Job) -> None:
        """Have ``work(job)`` done soon; waits while too many bytes wait. Raises what a job raised."""
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(cost, work, job))

    def settle(self) -> None:
        """Wait until all is done. Raises what a job raised."""
        while self._jobs:
            self._jobs.popleft().result()

    def close(self) -> None:
        """End the thread; what has not begun is dropped."""
        self._pool.close()
