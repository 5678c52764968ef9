"""A job on its way to a server and back, and how long a run waits for what."""

from __future__ import annotations

from dataclasses import dataclass

from .jobs import Job


@dataclass(frozen=True)
class Limits:
    """Numbers of a run; seconds where not said otherwise.

    Attributes:
        in_flight: jobs given to a server at a time: one runs, the others wait so that it never idles.
        poll: how often a server is asked when its websocket says nothing.
        settle: how long an id may be unknown to queue and history before it counts as gone.
        idle: how long a server may hold jobs and run none before it counts as out of order.
        grace: how long a server may be silent before its jobs are given to others.
        patience: how long no server may get anything done before the run stops.
        backoff: first pause after a server's trouble or a job's failure; doubled each time, up to `longest`.
    """

    in_flight: int = 3
    poll: float = 2.0
    settle: float = 3.0
    idle: float = 120.0
    grace: float = 20.0
    patience: float = 1800.0
    backoff: float = 1.0
    longest: float = 60.0


@dataclass
class Flight:
    """A job that the server has, or may have."""

    job: Job
    prompt_id: str
    adopted: bool = False  # by an earlier run or before an outage; nobody knows yet whether the server has it
    running: bool = False
    outage: bool = False  # the server was away while it had the job
    suspect: bool = False  # ... and while it was running it
    trouble: str | None = None  # HTTP 500 in answer to it
    unknown_since: float | None = None
