from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from perdure.pool import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(workers=2, limit=10)
    yield made
    made.close()


def test_what_waits_is_bounded(pool: Pool) -> None:
    gate = threading.Event()
    running: list[int] = []

    def work(job: int) -> int:
        running.append(job)
        gate.wait(60)
        return job

    first = [pool.submit(4, work, job) for job in range(2)]
    release = threading.Timer(0.2, gate.set)
    release.start()
    started = time.monotonic()
    third = pool.submit(4, work, 2)

    assert time.monotonic() - started > 0.1  # it had to wait for room
    assert [future.result() for future in [*first, third]] == [0, 1, 2]
    assert pool.submit(1000, lambda job: job, 3).result() == 3  # too big for the limit, but alone


def test_results_come_in_order(pool: Pool) -> None:
    def work(job: int) -> int:
        time.sleep(0.001 * (job % 3))
        return job

    assert list(pool.in_order(work, ((3, job) for job in range(50)))) == list(range(50))


def test_reading_ahead_is_bounded(pool: Pool) -> None:
    begun: list[int] = []

    def jobs() -> Iterator[tuple[int, int]]:
        for job in range(100):
            begun.append(job)
            yield 3, job

    results = pool.in_order(lambda job: job, jobs())
    next(results)
    assert len(begun) <= 5
    results.close()  # type: ignore[attr-defined]


def test_errors_come_out_where_they_belong(pool: Pool) -> None:
    def work(job: int) -> float:
        return 1 / (job - 2)

    results = pool.in_order(work, ((1, job) for job in range(5)))
    assert [next(results), next(results)] == [-0.5, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ZeroDivisionError):
        pool.submit(1, work, 2).result()
    assert pool.submit(10, work, 3).result() == 1  # what failed does not take up room
