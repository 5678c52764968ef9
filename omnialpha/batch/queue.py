"""The board of a run: which jobs wait for a server, and what happens to those that failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .history import LIMITS
from .jobs import Job
from .journal import Journal, Result
from .results import Folder

Say = Callable[[dict[str, Any]], None]


@dataclass
class Waiting:
    """A job that no server has.

    Attributes:
        since: not to be taken before this time.
        home: server that was given it and may still have it; others take it from `others` on.
        avoid: servers it failed on; they take it only when no other is up.
    """

    job: Job
    since: float = 0.0
    home: str | None = None
    others: float = 0.0
    avoid: set[str] = field(default_factory=set)


class Board:
    """Jobs between servers. All methods may be called from several threads.

    Args:
        jobs: those to run, in order. One that a server was given earlier waits for it, up to `grace` seconds.
        servers: names of those that take part.
        say: told of each thing that happens, as a dictionary with an "event".
        pause: seconds before a failed job is tried again; doubled each time.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        servers: Iterable[str],
        journal: Journal,
        say: Say,
        *,
        now: float = 0.0,
        grace: float = 20.0,
        pause: float = 1.0,
    ):
        self.journal, self.say, self.pause = journal, say, pause
        self._lock = threading.RLock()
        servers = set(servers)
        homes = {job: server for _, job, server in journal.open_attempts() if server in servers}
        self._waiting = {
            job.id: Waiting(job, home=homes.get(job.id), others=now + grace if job.id in homes else 0.0) for job in jobs
        }
        self._failed_on: dict[str, set[str]] = {}
        self.unfinished = set(self._waiting)
        self.up: set[str] = set()  # servers that answer

    def take(self, server: str, now: float) -> Job | None:
        """The next job for a server."""
        with self._lock:
            for waiting in self._waiting.values():
                elsewhere = self.up - waiting.avoid - {server}
                if (
                    waiting.since <= now
                    and (waiting.home in (None, server) or waiting.others <= now)
                    and not (server in waiting.avoid and elsewhere)
                ):
                    return self._waiting.pop(waiting.job.id).job
        return None

    def reclaim(self, job: str) -> Job | None:
        """A certain job, if it waits."""
        with self._lock:
            waiting = self._waiting.pop(job, None)
            return waiting.job if waiting else None

    def give_back(self, job: Job, since: float = 0.0) -> None:
        """A job that a server no longer has, or could not be asked about."""
        with self._lock:
            self._waiting[job.id] = Waiting(job, since, avoid=self._failed_on.get(job.id, set()))

    def settled(self, job: str) -> bool:
        """Whether a job that does not wait is of no concern to a server: finished, or in another's hands."""
        return job in self.unfinished or self.journal.state(job) in ("done", "set aside")

    def alone(self) -> bool:
        """Whether at most one job is left, so that no other can tell whether it is the job or the server."""
        return len(self.unfinished) <= 1

    def failed(self, job: Job, prompt_id: str, server: str, *, kind: str, reason: str, now: float) -> None:
        """An attempt failed: try again later, elsewhere if possible, or set the job aside."""
        limit = LIMITS[kind]
        tries, last = self.journal.fail(job.id, prompt_id, server=server, kind=kind, reason=reason, limit=limit)
        event = {"job": job.name, "server": server, "kind": kind, "reason": reason}
        if last:
            self.finished(job)
            self.say({"event": "set aside", **event})
            return
        if limit is not None:
            self._failed_on.setdefault(job.id, set()).add(server)
        self.give_back(job, now + (self.pause * 2 ** (tries - 1) if limit is not None else 0))
        self.say({"event": "again", **event})

    def fetched(
        self, job: Job, prompt_id: str, server: str, *, results: Sequence[Result], seconds: float | None, folder: Folder
    ) -> None:
        """All results are downloaded: claim their names, then give them those."""
        with self.journal.lock:  # between choosing names and claiming them
            self.journal.fetched(job.id, prompt_id, server, folder.claim(results, self.journal), seconds)
        if not folder.publish(job.id, self.journal):  # somebody removed the parts between download and naming
            self.journal.again([job.id])
            self.give_back(job)
            return
        self.finished(job)
        paths = [result.path for result in self.journal.results(job.id)]
        self.say({"event": "done", "job": job.name, "server": server, "seconds": seconds, "results": paths})

    def finished(self, job: Job) -> None:
        """A job is done or set aside."""
        with self._lock:
            self.unfinished.discard(job.id)
            self._failed_on.pop(job.id, None)
