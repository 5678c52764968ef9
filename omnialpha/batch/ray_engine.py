"""The library itself on a Ray cluster: Ray Data's pool of actors, a pipeline each, under the same journal as servers.

The jobs are those of `jobs.make_jobs`, for a small graph that stands for the task; so names, ids, results and reports
are the same as with servers. Each job is a block of its own: its answer is in the journal as soon as it is there, and a
process that dies takes no other job's answer with it.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from ..files.writing import write_blocks, writing
from ..tasks import LOOKS, PIXELS, get_task
from .jobs import File, Job, sha256
from .journal import Journal, Result
from .queue import Board, Say
from .ray_worker import BROKEN, PREFIX, Answer, RayWorker, Tally
from .results import Damaged, Folder, check
from .runner import signals
from .workflow import Workflow

ROUND = 50_000  # jobs handed to Ray Data at once: it makes a block of each, which takes about 1 ms and 5 KB here


@dataclass(frozen=True)
class Cluster:
    """Where pipelines run and what each one gets.

    Attributes:
        workers: pipelines; None: as many as Ray has room for.
        gpus: GPUs of each, parts of one or whole ones; None: 1 where Ray has any and `device` allows.
        cpus: CPU cores of each where it gets no GPU.
        address: of a running cluster ("auto", "ray://host:10001"); None starts one on this machine.
        device: of the pipelines: "auto", "cpu", "cuda".
    """

    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1.0
    address: str | None = None
    device: str = "auto"

    def pool(self, there: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """How many workers, and the share of each in Ray's words.

        Args:
            there: what Ray has, {"CPU": 16, "GPU": 4}.

        Raises:
            OmniAlphaError: it has not that much.
        """
        whole = there.get("GPU", 0)
        gpus = (1.0 if whole and self.device != "cpu" else 0.0) if self.gpus is None else self.gpus
        if gpus < 0 or self.cpus <= 0 or (gpus > 1 and gpus % 1):
            raise OmniAlphaError(f"A worker cannot have {gpus:g} GPUs and {self.cpus:g} CPUs: a part of one, or whole.")
        if self.device == "cuda" and not gpus:
            raise OmniAlphaError("--device cuda, but Ray has no GPU for it. See `ray status`, or use --device cpu.")
        if gpus:
            room = int(whole) * int(1 / gpus + 1e-9) if gpus < 1 else int(whole // gpus)
            share, kind = {"num_gpus": gpus, "num_cpus": 0}, f"{gpus:g} GPU"
        else:
            room = int(there.get("CPU", 0) / self.cpus + 1e-9)
            share, kind = {"num_gpus": 0, "num_cpus": self.cpus}, f"{self.cpus:g} CPU"
        if not room or (self.workers or 0) > room:
            raise OmniAlphaError(
                f"Ray has {there.get('CPU', 0):g} CPUs and {whole:g} GPUs, room for {room} workers with {kind} each; "
                f"{self.workers or 1} are asked for. Use fewer --workers, or give each less (--worker-gpus 0.5, "
                f"--worker-cpus 0.5)."
            )
        return self.workers or room, share


def task_graph(task: str, checkpoint: str = "micro") -> Workflow:
    """A graph that stands for a task of the library: nodes `image` and `guide` where it takes them, and `task`.

    Raises:
        OmniAlphaError: there is no such task.
    """
    row = get_task(task)
    values = {
        "task": row.id,
        "checkpoint": checkpoint,
        "text": "",
        "instruction": "",
        "negative": "",
        "seed": 0,
        "steps": 0,
        "guidance": 0.0,
        "pixels": PIXELS[0],
        "look": LOOKS[0],
    }
    prompt: dict[str, Any] = {"task": {"class_type": "OmniAlphaTask", "inputs": values, "_meta": {"title": "task"}}}
    for name, kind, wanted in (("image", "LoadImage", row.image_role), ("guide", "LoadImageMask", row.guide_role)):
        if wanted:
            prompt[name] = {"class_type": kind, "inputs": {"image": ""}, "_meta": {"title": name}}
            values[name] = [name, 0]
    return Workflow(prompt, f"Task {row.id}")


class RayRun:
    """Sends jobs through Ray Data; `run` is as that of `runner.Run`.

    Raises:
        OmniAlphaError: the checkpoint cannot be used.
    """

    def __init__(
        self, cluster: Cluster, graph: Workflow, jobs: Sequence[Job], *, journal: Journal, folder: Folder, say: Say
    ):
        from ..checkpoint.folder import Checkpoint

        self.cluster, self.graph, self.jobs, self.journal, self.folder = cluster, graph, jobs, journal, folder
        self.checkpoint = graph.prompt["task"]["inputs"]["checkpoint"]
        Checkpoint(self.checkpoint).check()
        for prompt_id, _, name in journal.open_attempts():
            if name.startswith(PREFIX):  # stopped while its answer was written down
                journal.end(prompt_id, "forgotten")
        self.board = Board(jobs, (), journal, say)

    def run(self) -> str:
        """Work until the end: "finished", or "stopped" by Ctrl-C or SIGTERM, at once: what runs will run again.

        Raises:
            DiskError, JournalError: this machine's disk, or --out; everything so far is safe.
            OmniAlphaError: Ray is not installed, has no room for the workers, or they cannot start.
        """
        if not self.board.unfinished:
            return "finished"
        ray = start_ray(self.cluster)
        try:
            with signals(_interrupt):
                workers, share = self.cluster.pool(ray.cluster_resources())
                while self.board.unfinished:
                    left = [job for job in self.jobs if job.id in self.board.unfinished][:ROUND]
                    self._round(ray, left, min(workers, len(left)), share)
            return "finished"
        except KeyboardInterrupt:
            return "stopped"
        finally:
            ray.shutdown()

    def _round(self, ray, jobs: Sequence[Job], workers: int, share: Mapping[str, float]) -> None:
        """Each of these jobs once."""
        tally = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tally).remote()
        rows = [{"job": job.id, "values": json.dumps(self.values(job))} for job in jobs]
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            RayWorker,
            fn_constructor_args=(self.checkpoint, self.cluster.device, tally),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            **share,
        )
        waiting = {job.id: job for job in jobs}
        try:
            for row in answers.iter_rows():
                answer = row["answer"]
                self.ended(waiting.pop(answer.job), answer)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise OmniAlphaError(f"Ray gave up: {reason} Run the same command again to go on.") from error
        for job in waiting.values():
            self.ended(job, Answer(job.id, PREFIX + "data", kind="crashed", reason="Ray lost it."))

    def values(self, job: Job) -> dict[str, Any]:
        """The inputs of the task, with a job's own."""
        values = dict(self.graph.prompt["task"]["inputs"])
        for name in ("image", "guide"):
            values.pop(name, None)
        for target, value in job.values.items():
            name = target.input if target.node == "task" else target.node
            values[name] = [_anywhere(value.path), value.sha256] if isinstance(value, File) else value
        return values

    def ended(self, job: Job, answer: Answer) -> None:
        """Write down what came of a job. Ray knows nothing of it after a stop, so that an attempt is noted only now."""
        if answer.kind == BROKEN:
            raise OmniAlphaError(f"{answer.worker} cannot start: {answer.reason}")
        try:
            results = self._written(job, answer)
        except Damaged as damaged:
            answer = Answer(job.id, answer.worker, kind="damaged", reason=str(damaged))
        prompt_id = str(uuid.uuid4())
        self.journal.send(job.id, answer.worker, prompt_id)
        if answer.kind:
            self.board.failed(
                job, prompt_id, answer.worker, kind=answer.kind, reason=answer.reason, now=time.monotonic()
            )
        else:
            self.board.fetched(
                job, prompt_id, answer.worker, results=results, seconds=answer.seconds, folder=self.folder
            )

    def _written(self, job: Job, answer: Answer) -> list[Result]:
        """The layers on this disk, looked at, without their names yet. Raises DiskError, Damaged."""
        results = []
        for number, (layer, content) in enumerate(answer.layers, 1):
            part = self.folder.part(job.id, number)
            with writing(part):
                write_blocks(part, [content])
            check(part, f"{layer}.png")
            wanted = self.folder.wanted(job, number, layer, f"{layer}.png")
            results.append(Result(number, wanted, sha256(part), len(content), layer))
        return results


def start_ray(cluster: Cluster):
    """The module `ray` with `ray.data`, connected. Raises OmniAlphaError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise OmniAlphaError(
            f"The engine 'ray' needs Ray Data ({error}): pip install -r requirements-ray.txt"
        ) from None
    if not ray.is_initialized():
        package = Path(__file__).resolve().parent.parent
        # Another machine gets the package from here; processes on this one find it where it is.
        code = {"py_modules": [str(package)]} if cluster.address else {"env_vars": {"PYTHONPATH": str(package.parent)}}
        local: dict[str, Any] = {} if cluster.address else {"include_dashboard": False}
        ray.init(
            cluster.address or "local", runtime_env=code, log_to_driver=False, logging_level=logging.ERROR, **local
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the run has its own
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _interrupt() -> None:
    raise KeyboardInterrupt


def _anywhere(path) -> str:
    """A path or an address that means the same in another process."""
    return os.path.abspath(path) if isinstance(path, Path) else str(path)
