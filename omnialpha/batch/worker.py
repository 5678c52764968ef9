"""What is done for one server, step by step: hand out jobs, ask what became of them, fetch results.

A worker never sleeps and reads no clock but the one it is given: `step` does what can be done now and says when to come
again. Threads call it in a run; tests call it as they please.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from .flight import Flight, Limits
from .history import Failure, Success, read_entry
from .jobs import File, Job, sha256
from .journal import Journal, Result
from .queue import Board
from .results import Damaged, Folder, check
from .server import Queue, Refused, Server, ServerClosed, ServerTrouble
from .workflow import Workflow


class Worker:
    """One server's part of a run.

    Args:
        previews: fetch preview files as well.
        client_id: whom the server tells about our jobs.
        new_id: makes prompt ids.
    """

    def __init__(
        self,
        server: Server,
        workflow: Workflow,
        board: Board,
        *,
        journal: Journal,
        folder: Folder,
        limits: Limits,
        previews: bool = False,
        client_id: str = "",
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ):
        self.server, self.workflow, self.board, self.journal, self.folder = server, workflow, board, journal, folder
        self.limits, self.previews, self.client_id, self.clock, self.new_id = limits, previews, client_id, clock, new_id
        self.flights: dict[str, Flight] = {}
        self.closed: str | None = None  # why this server is not used any more
        self.stopping = False  # hand out nothing new
        self.dropped = False  # set by the listener: the websocket broke, as it does when a server is killed
        self._uploaded: dict[str, str] = {}
        self._remembered: dict[str, set[str]] = {}  # job -> nodes whose results the server remembers and has not
        self._idle: tuple[set[str], float] | None = None  # what waits while nothing runs, and since when
        self._known = self._connected = self._fine = False
        self._troubles, self._retry_at = 0, 0.0
        self._down_since: float | None = None
        self.stuck_since: float | None = None  # since when there is trouble and nothing gets done

    def step(self) -> float:
        """Do what can be done now.

        Returns:
            Seconds after which to come again; sooner does no harm.

        Raises:
            DiskError, JournalError: this machine's disk; the run has to stop.
        """
        now = self.clock()
        self._release_when_overdue(now)
        if self.closed or now < self._retry_at:
            return self.limits.poll if self.closed else min(self._retry_at - now, self.limits.poll)
        if self.dropped:
            self.dropped = False
            self._doubt()
        try:
            if not self._connected:
                self._connect()
            self._collect()
            while not self.stopping and len(self.flights) < self.limits.in_flight:
                job = self.board.take(self.server.name, self.clock())
                if job is None:
                    break
                self._send(job)
        except ServerTrouble as trouble:
            self._trouble(trouble)
        except ServerClosed as closed:
            self.closed = str(closed)
            self._out()
            self.board.say({"event": "server closed", "server": self.server.name, "reason": self.closed})
        settling = any(flight.unknown_since is not None for flight in self.flights.values())
        return min(self.limits.poll, self.limits.settle) if settling else self.limits.poll

    def stuck(self) -> float:
        """Seconds since which this server has got nothing done because of trouble; 0 while it does."""
        if self.closed:
            return float("inf")
        return 0.0 if self.stuck_since is None else self.clock() - self.stuck_since

    # Connecting, and losing the connection

    def _connect(self) -> None:
        """The server answers, for the first time or again: see what it still has of ours."""
        version = self.server.check()
        lacking = [] if self._known else self.server.lacking(self.workflow.classes())
        if lacking:
            raise ServerClosed(f"{self.server.name} lacks the nodes {', '.join(lacking)}; install them there.")
        self._known = True
        queue, leftover = self._queue(), []
        for prompt_id, job_id, _ in self.journal.open_attempts(self.server.name):
            if prompt_id in self.flights:
                continue
            job = self.board.reclaim(job_id)
            if job is not None:
                self.flights[prompt_id] = Flight(job, prompt_id, adopted=True)
            elif self.board.settled(job_id):  # it is finished, or another server works on it
                self.journal.end(prompt_id, "moved")
                leftover += [prompt_id] if prompt_id in queue.pending else []
        if leftover:
            self.server.unqueue(leftover)
        self._connected, self._down_since, self._troubles = True, None, 0
        self.board.up.add(self.server.name)
        self.board.say({"event": "server up", "server": self.server.name, "version": version})

    def _trouble(self, trouble: ServerTrouble) -> None:
        now = self.clock()
        self.stuck_since = now if self.stuck_since is None else self.stuck_since
        if not trouble.request:
            self._down_since = now if self._down_since is None else self._down_since
            self._doubt()
        self._retry_at = now + min(self.limits.longest, self.limits.backoff * 2 ** min(self._troubles, 16))
        self._troubles += 1
        self.board.say(
            {
                "event": "server trouble",
                "server": self.server.name,
                "reason": str(trouble),
                "retry in": round(self._retry_at - now, 1),
            }
        )

    def _doubt(self) -> None:
        """The server may have been restarted: nothing about it is certain until it was asked."""
        for flight in self.flights.values():
            flight.outage, flight.suspect = True, flight.suspect or flight.running
            flight.running = False
        self._uploaded.clear()  # a fresh container has none of the files
        self._out()

    def _out(self) -> None:
        self._connected = False
        self.board.up.discard(self.server.name)

    def _release_when_overdue(self, now: float) -> None:
        """Give the jobs of a server that has been silent for long to others. Their attempts stay open."""
        silent = self.closed or (self._down_since is not None and now - self._down_since >= self.limits.grace)
        if silent and self.flights:
            for flight in self.flights.values():
                self.board.give_back(flight.job)
            self.flights.clear()

    def _good(self) -> None:
        """The server did what it is there for."""
        self._fine, self._troubles, self.stuck_since = True, 0, None

    # Jobs

    def _collect(self) -> None:
        """Ask what became of the jobs given out: first the queue, then the history, so that none slips between."""
        if not self.flights:
            return
        queue = self._queue()
        for flight in list(self.flights.values()):
            if flight.prompt_id in queue.running or flight.prompt_id in queue.pending:
                self._still_there(flight, queue)
                continue
            entry = self.server.history(flight.prompt_id)
            if entry is not None:
                self._ended(flight, read_entry(entry, self.previews))
            elif flight.unknown_since is None:
                flight.unknown_since = self.clock()
            elif self.clock() - flight.unknown_since >= self.limits.settle:
                self._gone(flight)

    def _queue(self) -> Queue:
        """What the server has. An error in ComfyUI's own upkeep can end the thread that runs graphs, while the server
        goes on to answer and to take jobs that it will never run: then jobs wait, none runs, and nothing changes."""
        queue, now = self.server.queue(), self.clock()
        if queue.running or not queue.pending:
            self._idle = None
        elif self._idle is None or self._idle[0] != queue.pending:
            self._idle = (queue.pending, now)
        elif now - self._idle[1] >= self.limits.idle:
            raise ServerTrouble(
                f"{self.server.name} has had {len(queue.pending)} jobs waiting and none running for "
                f"{now - self._idle[1]:.0f} s; the thread that runs them has probably died. Restart that ComfyUI."
            )
        return queue

    def _still_there(self, flight: Flight, queue: Queue) -> None:
        if flight.outage or flight.adopted:
            self._good()  # it outlived the outage
        flight.running = flight.prompt_id in queue.running
        flight.adopted = flight.outage = flight.suspect = False
        flight.unknown_since = flight.trouble = None

    def _gone(self, flight: Flight) -> None:
        """Neither queued nor done."""
        suspicious = self._fine or self.board.alone()  # else the server fails everybody, which proves nothing
        if flight.trouble:
            kind, reason = "server error" if suspicious else "forgotten", flight.trouble
        elif flight.suspect:
            kind, reason = "crashed" if suspicious else "forgotten", "The server went away while it worked on this job."
        elif flight.outage or flight.adopted:
            kind, reason = "forgotten", "The server was restarted and does not know the job any more."
        else:
            kind, reason = "vanished", "It disappeared from the server's queue; somebody may have deleted it there."
        if flight.trouble or flight.suspect:
            self._fine = False
        self._failed(flight, kind, reason)

    def _ended(self, flight: Flight, outcome: Success | Failure) -> None:
        if isinstance(outcome, Failure):
            kind = outcome.kind
            if outcome.servers_fault:  # out of memory or disk: counts against the job only where others did fine
                kind = kind if self._fine or self.board.alone() else "forgotten"
                self._failed(flight, kind, outcome.reason)
                self._fine = False
                raise ServerTrouble(outcome.reason, request=True)
            self._good()
            self._failed(flight, kind, outcome.reason)
            return
        try:
            results = self._fetch(flight.job, outcome)
        except Damaged as damaged:
            self._failed(flight, "damaged", str(damaged))
            return
        del self.flights[flight.prompt_id]
        self._remembered.pop(flight.job.id, None)
        self._good()
        self.board.fetched(
            flight.job, flight.prompt_id, self.server.name, results=results, seconds=outcome.seconds, folder=self.folder
        )

    def _fetch(self, job: Job, success: Success) -> list[Result]:
        """Download all results of a job and look at each; nothing has its name yet."""
        results = []
        for number, output in enumerate(success.outputs, 1):
            part = self.folder.part(job.id, number)
            try:
                self.server.download(output, part)
                check(part, output.filename)
            except Damaged:
                self._remembered.setdefault(job.id, set()).add(output.node)
                raise
            title = self.workflow.title(output.node) if output.node in self.workflow.prompt else output.node
            wanted = self.folder.wanted(job, number, title, output.filename)
            results.append(Result(number, wanted, sha256(part), part.stat().st_size, output.node))
        return results

    def _send(self, job: Job) -> None:
        """Note the attempt, send the files, queue the graph."""
        prompt_id = self.new_id()
        self.journal.send(job.id, self.server.name, prompt_id)
        flight = self.flights[prompt_id] = Flight(job, prompt_id)
        try:
            values = {key: self._on_server(value) for key, value in job.values.items()}
            graph = self.workflow.changed(values, anew=self._remembered.get(job.id, ()), mark=prompt_id)
            given = self.server.submit(graph, prompt_id, self.client_id)
        except Refused as refused:
            self._failed(flight, refused.kind, str(refused))
            return
        except ServerTrouble as trouble:  # it may have the job or not: asked once it answers again
            flight.trouble = str(trouble) if trouble.request else None
            flight.outage = not trouble.request
            raise
        if given != prompt_id:
            self.journal.rename(prompt_id, given)
            del self.flights[prompt_id]
            flight.prompt_id = given
            self.flights[given] = flight
        self.board.say({"event": "sent", "job": job.name, "server": self.server.name})

    def _on_server(self, file: Any) -> Any:
        """A value as the server takes it: a file is sent there, unless it is there already."""
        if not isinstance(file, File):
            return file
        if file.sha256 not in self._uploaded:
            try:
                changed = self.journal.hash_file(file.path) != file.sha256
            except OSError as error:
                raise Refused(f"{file.path} cannot be read: {error.strerror or error}.", "changed") from error
            if changed:
                raise Refused(f"{file.path} changed while the run was going on; run the command again.", "changed")
            self._uploaded[file.sha256] = self.server.upload(file.path, file.upload_name)
        return self._uploaded[file.sha256]

    def _failed(self, flight: Flight, kind: str, reason: str) -> None:
        del self.flights[flight.prompt_id]
        self.board.failed(flight.job, flight.prompt_id, self.server.name, kind=kind, reason=reason, now=self.clock())
