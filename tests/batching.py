"""What the tests of batches share: folders of inputs, and a run on pretended servers without threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pretend import WORKFLOW, Clock, PretendServer

from omnialpha.batch.flight import Limits
from omnialpha.batch.jobs import Job, make_jobs
from omnialpha.batch.journal import Journal
from omnialpha.batch.naming import OWN
from omnialpha.batch.queue import Board
from omnialpha.batch.results import Folder
from omnialpha.batch.rows import from_patterns
from omnialpha.batch.runner import prepare
from omnialpha.batch.worker import Worker
from omnialpha.batch.workflow import Workflow

TEMPLATE = "{folder}/{job}-{index:02}"


def inputs(folder: Path, contents: Iterable[bytes]) -> Path:
    """A folder with these contents as a.png, b.png, ..."""
    folder.mkdir()
    for letter, content in zip("abcdefghijklmnop", contents):
        (folder / f"{letter}.png").write_bytes(content)
    return folder


class Trial:
    """A batch on pretended servers: `open` is the start of the program, `step` one turn of everything."""

    def __init__(self, root: Path, servers: Iterable[PretendServer], contents: Iterable[bytes], wrap=lambda x: x):
        self.servers, self.clock, self.wrap = list(servers), Clock(), wrap
        root.mkdir(exist_ok=True)
        self.inputs, self.out = inputs(root / "in", contents), root / "out"
        self.workflow, self.events = Workflow(WORKFLOW), []
        self.limits = Limits(grace=20, patience=1800)
        self._ids = 0

    def jobs(self) -> list[Job]:
        """The jobs of the input folder."""
        return make_jobs(self.workflow, from_patterns({"image": str(self.inputs / "*.png")}), TEMPLATE)

    def open(self, retry: bool = False) -> None:
        """Start the program: journal, what an earlier one left, one worker per server."""
        self.journal = Journal(self.out / OWN / "journal.sqlite3", durable=False)
        journal, self.folder = self.wrap(self.journal), self.wrap(Folder(self.out, TEMPLATE))
        self.ready = prepare(self.jobs(), journal, self.folder, retry)
        names = [server.name for server in self.servers]
        times = {"now": self.clock(), "grace": self.limits.grace}
        self.board = Board(self.ready.jobs, names, journal, self.events.append, **times)
        self.workers = [
            Worker(
                self.wrap(server),
                self.workflow,
                self.board,
                journal=journal,
                folder=self.folder,
                limits=self.limits,
                clock=self.clock,
                new_id=self._new_id,
            )
            for server in self.servers
        ]

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def close(self) -> None:
        """The program is gone, whatever it was at."""
        self.journal.close()

    def step(self) -> None:
        """Every worker and every server does what it can, then a second passes."""
        for worker in self.workers:
            worker.step()
        for server in self.servers:
            server.work()
        self.clock.now += 1

    def until(self, condition: Callable[[], bool], steps: int = 2000) -> None:
        """Step until something is so."""
        for _ in range(steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"not within {steps} steps: {self.events[-5:]}")

    def finish(self, steps: int = 2000) -> None:
        """Step until every job has its results or a reason."""
        self.until(lambda: not self.board.unfinished, steps)

    def files(self) -> dict[str, bytes]:
        """Results by name."""
        paths = [path for path in self.out.rglob("*") if path.is_file() and OWN not in path.parts]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in sorted(paths)}

    def parts(self) -> list[str]:
        """Downloads that were left behind."""
        return [path.name for path in (self.out / OWN / "parts").glob("*")]

    def table(self) -> dict[str, tuple]:
        """Job name -> (state, kind)."""
        rows = self.journal.table([job.id for job in self.jobs()])
        return {row["name"]: (row["state"], row["kind"]) for row in rows}
