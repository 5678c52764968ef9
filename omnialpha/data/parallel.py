"""Work spread over processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ..errors import OmniAlphaError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def spread(work: Callable[[Item], Answer], jobs: Iterable[Item], workers: int) -> Iterator[Answer]:
    """`work(job)` of every job, in order; one worker, or one job, is done in this process.

    Raises:
        OmniAlphaError: a worker was killed, most likely because the machine has no memory left.
    """
    jobs = list(jobs)
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    # spawn: forking a process in which torch runs threads can hang
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), context, _follow_parent) as pool:
            yield from pool.map(work, jobs)
    except BrokenProcessPool as error:
        raise OmniAlphaError(
            "A worker process was killed, as happens when memory runs out. Run the same command again with fewer "
            "--workers; it goes on with what is missing."
        ) from error


def _follow_parent() -> None:
    """A worker ends when its parent was killed, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent, "only workers call this"
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
