"""One pipeline that does the jobs of a batch, wherever it runs: pictures in by path or address, layers out as PNG.

In Ray's pool each process is a `RayWorker` around one; `Tally` tells it whether a job killed its process before.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import OmniAlphaError
from .addresses import locate
from .jobs import version

ROLES = ("image", "guide")
PREFIX = "ray "  # of the names that processes have in journal and reports
BROKEN = "no worker"  # kind of an answer from a process that could not load the pipeline


class Changed(OmniAlphaError):
    """An input file is not what it was when the run was planned."""


class Painter:
    """A pipeline on a device.

    Raises:
        OmniAlphaError: there is no such checkpoint or device.
    """

    def __init__(self, checkpoint: str, device: str):
        from ..device import find_device
        from ..pipeline import load

        self.pipeline = load(checkpoint, find_device(device))

    def paint(self, values: Mapping[str, Any]) -> tuple[list[tuple[str, bytes]], float]:
        """The layers of a job as (name, PNG), back to front, and the seconds it took.

        Args:
            values: inputs of the graph's node `task`; for `image` and `guide` the file's path and `jobs.version`.

        Raises:
            OmniAlphaError: the inputs cannot be used; `Changed` where they are other files than planned.
            OSError: they cannot be read.
        """
        from ..files.pictures import write_layer
        from ..files.results import KEY
        from ..request import Request

        started = time.perf_counter()
        pictures = {role: _picture(*values[role]) for role in ROLES if role in values}
        request = Request(
            task=values["task"],
            instruction=values["instruction"] or None,
            images=[pictures["image"]] if "image" in pictures else [],
            guide=pictures.get("guide"),
            text=values["text"],
            seed=values["seed"],
            steps=values["steps"] or None,
            guidance=values["guidance"] or None,
            negative=values["negative"],
            pixels=values["pixels"],
            look=values["look"],
        )
        plan = request.plan(self.pipeline.settings)
        layers = self.pipeline.run(plan)
        note = plan.record() | {role: PurePosixPath(values[role][0]).name for role in ("checkpoint", *pictures)}
        note = {KEY: json.dumps(note, ensure_ascii=False)}
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, (layer, name) in enumerate(zip(layers, plan.names)):
                path = Path(folder, f"{number}.png")
                write_layer(layer, path, note)
                found.append((name, path.read_bytes()))
        return found, time.perf_counter() - started


def _picture(name: str, known: str):
    """A file that is still what it was, as a layer."""
    from ..files.pictures import decode_layer

    path = locate(name)
    try:
        if version(path) != known:
            raise Changed(f"{name} changed while the run was going on; run the command again.")
        return decode_layer(path.read_bytes(), name)
    except FileNotFoundError:
        raise Changed(f"{name} is not there, seen from {socket.gethostname()}.") from None


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Attributes:
        worker: the process, as reports name it.
        layers: (name, PNG), back to front; none where it failed.
        kind: of failure, as in `history.LIMITS`; empty where it did not fail.
    """

    job: str
    worker: str
    layers: Sequence[tuple[str, bytes]] = ()
    seconds: float | None = None
    kind: str = ""
    reason: str = ""


class Tally:
    """Counts how often each job was begun; an actor of its own, so that it outlives the workers."""

    def __init__(self):
        self.begun: dict[str, int] = {}

    def begin(self, job: str) -> int:
        """How often, this time included."""
        self.begun[job] = self.begun.get(job, 0) + 1
        return self.begun[job]


class RayWorker:
    """What an actor of the pool does: a pipeline, a job at a time. Whatever happens to a job is an answer."""

    def __init__(self, checkpoint: str, device: str, tally):
        self.name, self.tally = f"{PREFIX}{socket.gethostname()}:{os.getpid()}", tally
        try:
            self.painter, self.broken = Painter(checkpoint, device), ""
        except OmniAlphaError as error:
            self.painter, self.broken = None, str(error)

    def __call__(self, batch: Mapping[str, Sequence]) -> dict[str, list[Answer]]:
        """The answer to a batch of one job."""
        return {"answer": [self.answer(str(batch["job"][0]), json.loads(batch["values"][0]))]}

    def answer(self, job: str, values: Mapping[str, Any]) -> Answer:
        """Do a job. Ray gives one again whose process died; then the journal decides whether it is tried again."""
        import ray

        if self.painter is None:
            return Answer(job, self.name, kind=BROKEN, reason=self.broken)
        tries: Any = ray.get(self.tally.begin.remote(job))
        if tries > 1:
            return Answer(job, self.name, kind="crashed", reason="The process that worked on it died.")
        try:
            layers, seconds = self.painter.paint(values)
        except Changed as error:
            return Answer(job, self.name, kind="changed", reason=str(error))
        except OmniAlphaError as error:
            return Answer(job, self.name, kind="refused", reason=str(error))
        except Exception as error:
            return Answer(job, self.name, kind="failed", reason=f"{type(error).__name__}: {error}")
        return Answer(job, self.name, layers, seconds)
