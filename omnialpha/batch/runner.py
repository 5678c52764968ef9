"""A run: one thread per server, until every job has its results or a reason."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import OmniAlphaError
from .flight import Limits
from .jobs import Job
from .journal import Journal
from .listener import Listener
from .queue import Board, Say
from .results import Folder
from .server import Server, ServerClosed, ServerTrouble
from .worker import Worker
from .workflow import Workflow


@dataclass(frozen=True)
class Ready:
    """What is left to do once the journal was looked at."""

    jobs: list[Job]
    done: int  # by earlier runs
    gone: int  # done earlier, but files of theirs are gone, so they run again
    set_aside: int  # by earlier runs, and not tried again


def prepare(jobs: Sequence[Job], journal: Journal, folder: Folder, retry: bool = False) -> Ready:
    """Bring journal and disk to one state: note new jobs, name what was downloaded, find out what is missing.

    Args:
        retry: try again what was set aside.

    Raises:
        DiskError, JournalError: the disk refuses.
    """
    journal.add(jobs)
    for job, state in journal.states().items():
        if state == "fetched" and not folder.publish(job, journal):
            journal.again([job])
    states = journal.states()
    folder.sweep(job for job, state in states.items() if state == "fetched")
    gone = [job.id for job in jobs if states[job.id] == "done" and folder.missing(journal.results(job.id))]
    aside = [job.id for job in jobs if states[job.id] == "set aside"]
    journal.again([*gone, *(aside if retry else [])])
    states = journal.states()
    waiting = [job for job in jobs if states[job.id] == "waiting"]
    left_out = sum(states[job.id] == "set aside" for job in jobs)
    return Ready(waiting, len(jobs) - len(waiting) - left_out, len(gone), left_out)


class Run:
    """Sends jobs through servers.

    Args:
        jobs: those that wait, see `prepare`.
        say: told of each event, from any thread.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        workflow: Workflow,
        jobs: Sequence[Job],
        *,
        journal: Journal,
        folder: Folder,
        limits: Limits,
        say: Say,
        previews: bool = False,
    ):
        self.limits, self.say, self._lock = limits, say, threading.Lock()
        self._changed, self._stop = threading.Event(), threading.Event()
        self._presses, self._error = 0, None
        client = uuid.uuid4().hex
        names = [server.name for server in servers]
        self.board = Board(
            jobs, names, journal, self._tell, now=time.monotonic(), grace=limits.grace, pause=limits.backoff
        )
        self.workers = [
            Worker(
                server,
                workflow,
                self.board,
                journal=journal,
                folder=folder,
                limits=limits,
                previews=previews,
                client_id=client,
            )
            for server in servers
        ]
        self._wakes = [threading.Event() for _ in servers]
        self._listeners = [
            Listener(worker.server, client, wake.set, partial(self._dropped, worker, wake))
            for worker, wake in zip(self.workers, self._wakes)
        ]

    def run(self) -> str:
        """Work until the end.

        Returns:
            "finished"; "stopped" by Ctrl-C or SIGTERM; or why it gave up.

        Raises:
            DiskError, JournalError: this machine's disk; everything so far is safe.
        """
        if not self.board.unfinished:
            return "finished"
        threads = [
            threading.Thread(target=self._serve, args=pair, name=pair[0].server.name, daemon=True)
            for pair in zip(self.workers, self._wakes)
        ]
        with signals(self._press):
            for part in (*self._listeners, *threads):
                part.start()
            try:
                while (end := self._end()) is None:
                    self._changed.wait(0.5)
                    self._changed.clear()
                    if self._presses and not self.workers[0].stopping:
                        self._hand_out_nothing()
            finally:
                self._stop.set()
                for wake in self._wakes:
                    wake.set()
                for listener in self._listeners:
                    listener.stop()
                for thread in threads:
                    thread.join(0 if self._presses > 1 else 15)
        if self._error is not None:
            raise self._error
        return end

    def _end(self) -> str | None:
        """How the run ended, None while it goes on."""
        if self._error is not None:
            return "error"
        if not self.board.unfinished:
            return "finished"
        if self._presses > 1 or (self._presses and not any(worker.flights for worker in self.workers)):
            return "stopped"
        if all(worker.closed for worker in self.workers):
            return "no server can be used: " + "; ".join(str(worker.closed) for worker in self.workers)
        if all(worker.stuck() > self.limits.patience for worker in self.workers):
            return f"no server got anything done for {self.limits.patience / 60:.0f} minutes"
        return None

    def _serve(self, worker: Worker, wake: threading.Event) -> None:
        while not self._stop.is_set():
            wake.clear()
            try:
                delay = worker.step()
            except BaseException as error:  # a full disk, or a bug: the main thread raises it
                self._error = error
                self._changed.set()
                return
            self._changed.set()
            wake.wait(delay)

    @staticmethod
    def _dropped(worker: Worker, wake: threading.Event) -> None:
        worker.dropped = True
        wake.set()

    def _press(self) -> None:
        """Ctrl-C. Only noted here: a signal may come while the main thread holds any lock."""
        self._presses += 1

    def _hand_out_nothing(self) -> None:
        """After the first Ctrl-C: finish what servers have."""
        for worker, wake in zip(self.workers, self._wakes):
            worker.stopping = True
            wake.set()
        self._tell({"event": "stopping", "in flight": sum(len(worker.flights) for worker in self.workers)})

    def _tell(self, event: dict) -> None:
        with self._lock:
            self.say(event)


def check_servers(servers: Sequence[Server]) -> None:
    """Raises OmniAlphaError where none of the servers answers, so that a wrong address is found out at once."""
    reasons = []
    for server in servers:
        try:
            server.check()
            return
        except (ServerTrouble, ServerClosed) as error:
            reasons.append(str(error))
    raise OmniAlphaError("No server can be used. " + " ".join(reasons))


@contextlib.contextmanager
def signals(press: Callable[[], None]) -> Iterator[None]:
    """Calls `press` for Ctrl-C and SIGTERM, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: press()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
