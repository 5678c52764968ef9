"""The library itself on a Ray cluster: a pool of actors with a pipeline each, under the same journal as servers.

The jobs are those of `jobs.make_jobs`, for a small graph that stands for the task; so names, ids, results and reports
are the same as with servers. An actor that dies is started again by Ray, and its job runs again.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from ..tasks import get_task
from .board import Board, Say
from .jobs import File, Job, sha256
from .journal import Journal, Result
from .results import Folder, check, writing
from .runner import signals
from .workflow import Workflow

PREFIX = "ray actor "  # of the names that actors have in journal and reports


@dataclass(frozen=True)
class Cluster:
    """Where actors run and what each one gets.

    Attributes:
        workers: actors, each with a pipeline of its own.
        gpus, cpus: each actor's share, in devices; parts of a GPU are shared.
        address: of a running cluster ("auto", "ray://host:10001"); None starts one on this machine.
        device: of the pipeline: "auto", "cpu", "cuda".
    """

    workers: int = 1
    gpus: float = 0.0
    cpus: float = 1.0
    address: str | None = None
    device: str = "auto"


def task_graph(task: str, checkpoint: str = "micro") -> Workflow:
    """A graph that stands for a task of the library: nodes `image` and `guide` where it takes them, and `task`.

    Raises:
        OmniAlphaError: there is no such task.
    """
    row = get_task(task)
    values = {"task": row.id, "checkpoint": checkpoint, "text": "", "instruction": "", "negative": "", "seed": 0,
              "steps": 0, "guidance": 0.0}  # fmt: skip
    prompt: dict[str, Any] = {"task": {"class_type": "OmniAlphaTask", "inputs": values, "_meta": {"title": "task"}}}
    for name, kind, wanted in (("image", "LoadImage", row.image_role), ("guide", "LoadImageMask", row.guide_role)):
        if wanted:
            prompt[name] = {"class_type": kind, "inputs": {"image": ""}, "_meta": {"title": name}}
            values[name] = [name, 0]
    return Workflow(prompt, f"Task {row.id}")


class Painter:
    """What an actor does: one pipeline, one job at a time."""

    def __init__(self, checkpoint: str, device: str):
        from ..checkpoint import find_checkpoint
        from ..running import find_device, load
        from ..settings import read_settings

        self.settings = read_settings(find_checkpoint(checkpoint))
        self.pipeline = load(checkpoint, find_device(device))

    def paint(self, values: Mapping[str, Any]) -> tuple[list[tuple[str, bytes]], float]:
        """The layers of a job as (name, PNG), back to front, and the seconds it took.

        Args:
            values: inputs of the graph's node `task`, and paths for `image` and `guide`.
        """
        import tempfile

        from ..layers import write_layer
        from ..output import KEY
        from ..request import plan

        started = time.perf_counter()
        images = [values["image"]] if "image" in values else []
        request = plan(
            self.settings, values["task"], values["instruction"] or None, images, values.get("guide"), values["text"],
            seed=values["seed"], steps=values["steps"] or None, guidance=values["guidance"] or None,
            negative=values["negative"],
        )  # fmt: skip
        layers = self.pipeline.run(request)
        note = {KEY: _note({**values, "instruction": request.instruction})}
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, (layer, name) in enumerate(zip(layers, request.names)):
                path = Path(folder, f"{number}.png")
                write_layer(layer, path, note)
                found.append((name, path.read_bytes()))
        return found, time.perf_counter() - started


class RayRun:
    """Sends jobs through actors; `run` is as that of `runner.Run`.

    Raises:
        OmniAlphaError: Ray is not installed, or the checkpoint cannot be used.
    """

    def __init__(
        self, cluster: Cluster, graph: Workflow, jobs: Sequence[Job], journal: Journal, folder: Folder, say: Say
    ):
        from ..checkpoint import check_folder, find_checkpoint

        self.cluster, self.graph, self.journal, self.folder, self.say = cluster, graph, journal, folder, say
        self.checkpoint = graph.prompt["task"]["inputs"]["checkpoint"]
        check_folder(find_checkpoint(self.checkpoint))
        for prompt_id, _, name in journal.open_attempts():
            if name.startswith(PREFIX):  # the actors of an earlier run ended with it
                journal.end(prompt_id, "forgotten")
        self.names = [f"{PREFIX}{number + 1}" for number in range(cluster.workers)]
        self.board = Board(jobs, self.names, journal, say)
        self.actors: dict[str, Any] = {}
        self._presses = 0

    def run(self) -> str:
        """Work until the end: "finished", or "stopped" by Ctrl-C or SIGTERM.

        Raises:
            DiskError, JournalError: this machine's disk; everything so far is safe.
        """
        if not self.board.unfinished:
            return "finished"
        ray = start_ray(self.cluster)
        # A call is not repeated by Ray: the journal counts how often a job brought its actor down.
        actor = ray.remote(num_gpus=self.cluster.gpus, num_cpus=self.cluster.cpus, max_restarts=-1, max_task_retries=0)(
            Painter
        )
        self.actors = {name: actor.remote(self.checkpoint, self.cluster.device) for name in self.names}
        self.board.up.update(self.names)
        try:
            with signals(self._press):
                return self._work(ray)
        finally:
            for one in self.actors.values():
                ray.kill(one)
            ray.shutdown()

    def _work(self, ray) -> str:
        busy: dict[Any, tuple[str, Job, str]] = {}
        while self.board.unfinished:
            if self._presses > 1 or (self._presses and not busy):
                return "stopped"
            idle = set(self.names) - {name for name, _, _ in busy.values()}
            for name in sorted(idle) if not self._presses else ():
                job = self.board.take(name, time.monotonic())
                if job is not None:
                    prompt_id = str(uuid.uuid4())
                    self.journal.send(job.id, name, prompt_id)
                    busy[self.actors[name].paint.remote(self._values(job))] = name, job, prompt_id
                    self.say({"event": "sent", "job": job.name, "server": name})
            if not busy:
                time.sleep(0.1)  # all that is left waits to be tried again
                continue
            for reference in ray.wait(list(busy), timeout=0.5)[0]:
                self._ended(ray, reference, *busy.pop(reference))
        return "finished"

    def _press(self) -> None:
        self._presses += 1

    def _values(self, job: Job) -> dict[str, Any]:
        """The inputs of the task, with a job's own."""
        values = dict(self.graph.prompt["task"]["inputs"])
        for name in ("image", "guide"):
            values.pop(name, None)
        for target, value in job.values.items():
            name = target.input if target.node == "task" else target.node
            values[name] = os.path.abspath(value.path) if isinstance(value, File) else value
        return values

    def _ended(self, ray, reference, name: str, job: Job, prompt_id: str) -> None:
        try:
            layers, seconds = ray.get(reference)
        except ray.exceptions.RayActorError:
            self._failed(name, job, prompt_id, "crashed", "The process that worked on it died.")
            return
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            kind = "refused" if isinstance(cause, OmniAlphaError) else "failed"
            reason = str(cause) if kind == "refused" else f"{type(cause).__name__}: {cause}"
            self._failed(name, job, prompt_id, kind, reason)
            return
        results = []
        for number, (layer, content) in enumerate(layers, 1):
            part = self.folder.part(job.id, number)
            with writing(part), open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            check(part, f"{layer}.png")
            wanted = self.folder.wanted(job, number, layer, f"{layer}.png")
            results.append(Result(number, wanted, sha256(part), len(content), layer))
        self.board.fetched(job, prompt_id, name, results, seconds, self.folder)

    def _failed(self, name: str, job: Job, prompt_id: str, kind: str, reason: str) -> None:
        self.board.failed(job, prompt_id, name, kind, reason, time.monotonic())


def start_ray(cluster: Cluster):
    """The module `ray`, connected. Raises OmniAlphaError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError:
        raise OmniAlphaError("The engine 'ray' needs Ray: pip install -r requirements-ray.txt") from None
    if not ray.is_initialized():
        package = Path(__file__).resolve().parent.parent
        # Another machine gets the package from here; processes on this one find it where it is.
        code = {"py_modules": [str(package)]} if cluster.address else {"env_vars": {"PYTHONPATH": str(package.parent)}}
        local = {} if cluster.address else {"num_cpus": max(1, round(cluster.workers * cluster.cpus)),
                                            "include_dashboard": False}  # fmt: skip
        ray.init(cluster.address or "local", runtime_env=code, log_to_driver=False, logging_level="error", **local)
    return ray


def _note(values: Mapping[str, Any]) -> str:
    import json

    kept = {name: Path(value).name if name in ("image", "guide") else value for name, value in values.items()}
    return json.dumps(kept, ensure_ascii=False)
