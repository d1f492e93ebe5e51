"""Floor 8: independent pieces of work on as many CPU cores as torch may use, one core each.

Small batched products do not fill several cores: with two threads inside each operation 64 small networks are fitted 1.6 times
as fast on an idle machine, and 10 times slower on a busy one, where the threads wait for one another at every operation. Pieces
that never meet run twice as fast on two cores, and share a busy machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch


class _Stopped(Exception):
    """Another piece failed, or the user interrupted."""


Piece, Result = TypeVar("Piece"), TypeVar("Result")


def run_side_by_side(
    work: Callable[[Piece, Callable[[int], object]], Result],
    pieces: Sequence[Piece],
    threads: int,
    tick: Callable[[int], object],
) -> list[Result]:
    """Return `work(piece, tick)` of each piece, in order; the first failure ends all and is raised.

    `work` must call `tick(n)` now and then: it counts n as done, and ends a piece whose result nobody wants any more. While
    several pieces run, torch uses one thread inside each operation.
    """
    lock, stop = threading.Lock(), threading.Event()

    def count(n: int) -> None:
        if stop.is_set():
            raise _Stopped
        with lock:
            tick(n)

    if len(pieces) < 2 or threads < 2:
        return [work(piece, count) for piece in pieces]

    def run(piece: Piece) -> Result:
        torch.set_num_threads(1)  # each thread has a count of its own
        return work(piece, count)

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(threads, len(pieces)), thread_name_prefix="fit") as pool:
            futures = [pool.submit(run, piece) for piece in pieces]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # all are done, one failed, or the user interrupted
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        torch.set_num_threads(before)
    failures = [future.exception() for future in futures if not future.cancelled() and future.exception() is not None]
    for failure in failures:
        if not isinstance(failure, _Stopped):
            raise failure
    return [future.result() for future in futures]
