"""The journal of a batch: what was given to whom and what came of it, in one sqlite file that survives any stop.

A job is `waiting`, then `fetched` (its results are downloaded and their names claimed), then `done`; or `set aside`
with a reason. An attempt is written down before the server hears of it and stays open until its fate is known: whoever
opens the journal next can ask the server for it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from .addresses import is_address
from .jobs import File, Job, version

FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting', kind TEXT, reason TEXT,
    server TEXT, seconds REAL, finished REAL, inputs TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    prompt_id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs(id), server TEXT NOT NULL, sent REAL NOT NULL,
    ended REAL, outcome TEXT, reason TEXT
);
CREATE INDEX IF NOT EXISTS attempts_by_job ON attempts(job);
CREATE TABLE IF NOT EXISTS results (
    job TEXT NOT NULL REFERENCES jobs(id), number INTEGER NOT NULL, path TEXT NOT NULL UNIQUE COLLATE NOCASE,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, node TEXT NOT NULL, PRIMARY KEY (job, number)
);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT NOT NULL);
"""


class JournalError(OmniAlphaError):
    """The journal cannot be written: the disk is full or gone."""


@dataclass(frozen=True)
class Result:
    """A file of a job: its place below the output folder, and its content's hash."""

    number: int
    path: str
    sha256: str
    size: int
    node: str


class Journal:
    """An open journal; one process has it at a time, its threads share it.

    Args:
        path: the file; made where it is missing, its folder too.
        durable: wait for the disk at each step, so that a power cut loses nothing either.

    Raises:
        OmniAlphaError: another run has it, or it is no journal.
    """

    def __init__(self, path: Path, durable: bool = True, clock=time.time):
        self.path, self.clock = path, clock
        self.lock = threading.RLock()  # held by each method; hold it yourself around several that belong together
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
            # Exclusive before WAL: then there is no shared memory file either, and network folders work.
            for pragma in (
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "foreign_keys = ON",
                f"synchronous = {'FULL' if durable else 'OFF'}",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            with self._change():
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, FORMAT):
                    raise OmniAlphaError(f"{path} is of format {version}; this program knows {FORMAT}. Update it.")
                for statement in filter(str.strip, SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OmniAlphaError(
                    f"Another run is working with {path}. Wait for it, or choose another --out."
                ) from None
            raise OmniAlphaError(f"{path} cannot be opened: {error}.") from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise OmniAlphaError(f"{path} is no journal of a batch, or it is damaged ({error}).") from error

    def close(self) -> None:
        """Give the journal back."""
        with self.lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction: all of it or nothing."""
        with self.lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if "full" in str(error) or "I/O" in str(error) or "readonly" in str(error):
                    raise JournalError(f"{self.path} cannot be written: {error}.") from error
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple]:
        with self.lock:
            return self._db.execute(query, values).fetchall()

    # Planning

    def add(self, jobs: Iterable[Job]) -> None:
        """Note jobs that are new; those known stay as they are."""
        with self._change():
            self._db.executemany(
                "INSERT OR IGNORE INTO jobs (id, name, inputs) VALUES (?, ?, ?)",
                ((job.id, job.name, json.dumps(_inputs(job), ensure_ascii=False)) for job in jobs),
            )

    def hash_file(self, path: Path) -> str:
        """`jobs.version` of a file; of one on a disk remembered as long as its size and time stay. Raises OSError."""
        if is_address(path):
            return version(path)
        stat, name = path.stat(), str(path.resolve())
        known = self._rows("SELECT size, mtime_ns, sha256 FROM files WHERE path = ?", name)
        if known and known[0][:2] == (stat.st_size, stat.st_mtime_ns):
            return known[0][2]
        found = version(path)
        with self._change():
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (name, stat.st_size, stat.st_mtime_ns, found)
            )
        return found

    def states(self) -> dict[str, str]:
        """Job id -> state, of every job ever noted."""
        return dict(self._rows("SELECT id, state FROM jobs"))

    def state(self, job: str) -> str | None:
        """A job's state, None where it was never noted."""
        found = self._rows("SELECT state FROM jobs WHERE id = ?", job)
        return found[0][0] if found else None

    def again(self, jobs: Iterable[str]) -> None:
        """Let jobs wait as if they had never run: those set aside, and those whose results are gone."""
        with self._change():
            for job in jobs:
                self._db.execute(
                    "UPDATE jobs SET state = 'waiting', kind = NULL, reason = NULL, finished = NULL WHERE id = ?",
                    (job,),
                )
                self._db.execute("DELETE FROM attempts WHERE job = ? AND outcome IS NOT NULL", (job,))
                self._db.execute("DELETE FROM results WHERE job = ?", (job,))

    # Attempts

    def open_attempts(self, server: str | None = None) -> list[tuple[str, str, str]]:
        """(prompt id, job, server) of attempts whose fate is unknown, oldest first; of one server, or all."""
        return self._rows(
            "SELECT prompt_id, job, server FROM attempts WHERE outcome IS NULL AND ? IN (server, '') "
            "ORDER BY sent, rowid",
            server or "",
        )

    def send(self, job: str, server: str, prompt_id: str) -> None:
        """Before a server hears of it: this job goes there under this id."""
        with self._change():
            self._db.execute(
                "INSERT INTO attempts (prompt_id, job, server, sent) VALUES (?, ?, ?, ?)",
                (prompt_id, job, server, self.clock()),
            )

    def rename(self, prompt_id: str, other: str) -> None:
        """The server, an old one, chose an id of its own."""
        with self._change():
            self._db.execute("UPDATE attempts SET prompt_id = ? WHERE prompt_id = ?", (other, prompt_id))

    def end(self, prompt_id: str, outcome: str, reason: str = "") -> None:
        """An attempt's fate is known."""
        with self._change():
            self._end(prompt_id, outcome, reason)

    def _end(self, prompt_id: str, outcome: str, reason: str) -> None:
        self._db.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, reason = ? WHERE prompt_id = ? AND outcome IS NULL",
            (self.clock(), outcome, reason, prompt_id),
        )

    def fail(
        self, job: str, prompt_id: str, *, server: str, kind: str, reason: str, limit: int | None
    ) -> tuple[int, bool]:
        """An attempt failed; at the limit the job is set aside, in one step, so that no stop gives it another try.

        Args:
            limit: how often it may fail this way; None: for ever.

        Returns:
            How often it has, and whether that was the last time.
        """
        with self._change():
            self._end(prompt_id, kind, reason)
            tries = self._rows("SELECT count(*) FROM attempts WHERE job = ? AND outcome = ?", job, kind)[0][0]
            last = limit is not None and tries >= limit
            if last:
                more = f" ({tries} times)" if tries > 1 else ""
                self._db.execute(
                    "UPDATE jobs SET state = 'set aside', kind = ?, reason = ?, server = ?, finished = ? WHERE id = ?",
                    (kind, reason + more, server, self.clock(), job),
                )
        return tries, last

    # Results

    def taken(self, path: str) -> bool:
        """Whether a name belongs to some job's result."""
        return bool(self._rows("SELECT 1 FROM results WHERE path = ?", path))

    def results(self, job: str) -> list[Result]:
        """A job's results, claimed or there."""
        query = "SELECT number, path, sha256, size, node FROM results WHERE job = ? ORDER BY number"
        return [Result(*row) for row in self._rows(query, job)]

    def fetched(self, job: str, prompt_id: str, server: str, results: Sequence[Result], seconds: float | None) -> None:
        """All results are downloaded, and these names are theirs. From here on no server is needed."""
        with self._change():
            self._db.execute("DELETE FROM results WHERE job = ?", (job,))
            self._db.executemany(
                "INSERT INTO results (job, number, path, sha256, size, node) VALUES (?, ?, ?, ?, ?, ?)",
                ((job, r.number, r.path, r.sha256, r.size, r.node) for r in results),
            )
            self._db.execute(
                "UPDATE jobs SET state = 'fetched', server = ?, seconds = ?, kind = NULL, reason = NULL WHERE id = ?",
                (server, seconds, job),
            )
            self._end(prompt_id, "done", "")

    def move(self, job: str, number: int, path: str) -> None:
        """A claimed name was taken by somebody else meanwhile: claim another."""
        with self._change():
            self._db.execute("UPDATE results SET path = ? WHERE job = ? AND number = ?", (path, job, number))

    def done(self, job: str) -> None:
        """All results have their names."""
        with self._change():
            self._db.execute("UPDATE jobs SET state = 'done', finished = ? WHERE id = ?", (self.clock(), job))

    # Reports

    def table(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """What is known of these jobs, one dictionary each, in order."""
        rows = []
        for job in ids:
            found = self._rows(
                "SELECT name, state, kind, reason, server, seconds, finished, inputs FROM jobs WHERE id = ?", job
            )
            names = ("name", "state", "kind", "reason", "server", "seconds", "finished", "inputs")
            row = {"id": job, **dict(zip(names, found[0]))}
            row["inputs"] = json.loads(row["inputs"])
            row["attempts"] = self._rows("SELECT count(*) FROM attempts WHERE job = ?", job)[0][0]
            row["results"] = [result.path for result in self.results(job)]
            rows.append(row)
        return rows


def _inputs(job: Job) -> dict[str, Any]:
    values = job.values.items()
    return {f"{t.node}.{t.input}": str(v.path) if isinstance(v, File) else v for t, v in values}
