"""How long a batch takes and what it costs: `measure` a worker's seconds, those of `ray`, and `plan` with them.

python tools/scale.py measure --checkpoint PATH --task decomposition_auto --size 1024
python tools/scale.py ray
python tools/scale.py plan --pictures 1000000 --gpus 10 100 --model 5 --price 2
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class Stopwatch:
    """Seconds on the wall and of this process's CPU; the second says more where other programs keep the CPU busy."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __enter__(self):
        self._from = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall += time.perf_counter() - self._from[0]
        self.cpu += time.process_time() - self._from[1]


def rate(workers: float, model: float, files: float, books: float) -> float:
    """Pictures per second: that of all workers, or of the one machine that writes everything down."""
    return min(workers / (model + files), 1 / books if books else float("inf"))


def hours(pictures: int, workers: int, model: float, files: float, books: float, start: float, deaths: float) -> float:
    """Hours for so many pictures.

    Args:
        workers: processes with a pipeline each.
        model, files: seconds a worker spends on a picture in the model, and on reading and writing files.
        books: seconds that the machine with the journal spends on a picture.
        start: seconds until a worker has its pipeline; again for each round of jobs, and after it died.
        deaths: of each worker per day; each costs a start and the picture it was at.
    """
    from omnialpha.batch.ray_engine import ROUND

    rounds = math.ceil(pictures / ROUND)
    lost = deaths / 86400 * (start + model + files)
    if lost >= 1:
        raise SystemExit("Workers die faster than they start: nothing gets done.")
    return (rounds * start + pictures / rate(workers * (1 - lost), model, files, books)) / 3600


def plan(args) -> None:
    """Prints a table with a row for each number of GPUs."""
    print("| GPUs | pictures/s | hours | GPU hours | cost |\n|---|---|---|---|---|")
    for gpus in args.gpus:
        workers = gpus * args.workers_per_gpu
        time_ = hours(args.pictures, workers, args.model, args.files, args.books, args.start, args.deaths)
        speed = rate(workers, args.model, args.files, args.books)
        print(f"| {gpus} | {speed:.3g} | {time_:,.1f} | {gpus * time_:,.0f} | {gpus * time_ * args.price:,.0f} |")


class Timed:
    """A pipeline whose time in the model is watched."""

    def __init__(self, pipeline, watch: Stopwatch):
        self.pipeline, self.watch = pipeline, watch

    @property
    def settings(self):
        """The pipeline's."""
        return self.pipeline.settings

    def run(self, plan):
        """As the pipeline's."""
        with self.watch:
            return self.pipeline.run(plan)


def measure(args) -> None:
    """Prints the seconds per picture of one worker, task by task, and of the machine that has journal and results."""
    start = Stopwatch()
    with start:
        from omnialpha.batch.ray_worker import Painter

        painter = Painter(args.checkpoint, args.device)
    print(f"{args.checkpoint}, {args.size} x {args.size}, {args.count} pictures of each task\n")
    print(f"| seconds | wall | CPU |\n|---|---|---|\n{_row('start of a worker', start, 1)}", flush=True)
    for task in args.task:
        with tempfile.TemporaryDirectory() as folder:
            for watch, name in zip(_measured(painter, task, args, Path(folder)), ("model", "files", "books")):
                print(_row(f"{task}, {name}", watch, args.count), flush=True)


def _measured(painter, task: str, args, folder: Path) -> tuple[Stopwatch, Stopwatch, Stopwatch]:
    from PIL import Image

    from omnialpha.batch.jobs import make_jobs
    from omnialpha.batch.journal import Journal
    from omnialpha.batch.ray_engine import Cluster, RayRun, task_graph
    from omnialpha.batch.ray_worker import Answer
    from omnialpha.batch.results import Folder
    from omnialpha.batch.rows import from_patterns

    for number in range(args.count + 1):  # the first one warms up
        Image.effect_noise((args.size, args.size), 60 + number).convert("RGB").save(folder / f"{number:05}.png")
    graph = task_graph(task, args.checkpoint)
    inputs = {"image": f"{folder}/*.png", "text": "a thing" if task.endswith("_text") else ""}
    inputs |= {"guide": "{parent}/{name}"} if "guide" in graph.prompt else {}
    jobs = make_jobs(graph, list(from_patterns(inputs, lambda name: name != "text")), "{job}-{index}")
    journal = Journal(folder / "journal.sqlite3")
    journal.add(jobs)
    results = Folder(folder / "out", "{job}-{index}")
    run = RayRun(Cluster(), graph, jobs, journal=journal, folder=results, say=lambda event: None)
    pipeline, model, whole, books = painter.pipeline, Stopwatch(), Stopwatch(), Stopwatch()
    for job in jobs:
        if job is jobs[1]:
            model, whole, books = Stopwatch(), Stopwatch(), Stopwatch()
        painter.pipeline = Timed(pipeline, model)
        with whole:
            layers, seconds = painter.paint(run.values(job))
        with books:
            run.ended(job, Answer(job.id, "ray", layers, seconds))
    painter.pipeline = pipeline
    journal.close()
    files = Stopwatch()
    files.wall, files.cpu = whole.wall - model.wall, whole.cpu - model.cpu
    return model, files, books


def ray_alone(args) -> None:
    """Prints what Ray Data itself takes for a job, in the process that hands them out: jobs that do nothing."""
    from omnialpha.batch.ray_engine import Cluster, start_ray

    ray = start_ray(Cluster())
    rows = [{"job": f"{number:064}", "values": "x" * 300} for number in range(args.jobs)]
    blocks, answers = Stopwatch(), Stopwatch()
    with blocks:
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data = data.map_batches(Nothing, batch_size=1, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.5)
    arriving = iter(data.iter_rows())
    next(arriving)  # the worker is up
    with answers:
        for _ in arriving:
            pass
    ray.shutdown()
    print("| seconds per job | wall | CPU |\n|---|---|---|")
    print(f"{_row('blocks made', blocks, args.jobs)}\n{_row('answers received', answers, args.jobs - 1)}")


class Nothing:
    """A worker that gives back what it gets."""

    def __call__(self, batch):
        """The same batch."""
        return batch


def _row(name: str, watch: Stopwatch, count: int) -> str:
    return f"| {name} | {watch.wall / count:.3f} | {watch.cpu / count:.3f} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--checkpoint", default="micro", help="folder, or micro")
    one.add_argument("--device", default="auto", help="auto, cuda, cpu")
    one.add_argument("--task", nargs="+", default=["decomposition_auto"], help="tasks that take an image")
    one.add_argument("--size", type=int, default=1024, help="pixels of a side")
    one.add_argument("--count", type=int, default=20, help="pictures of each task")
    one.set_defaults(run=measure)
    two = commands.add_parser("plan", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    two.add_argument("--pictures", type=int, default=1_000_000, help="how many")
    two.add_argument("--gpus", type=int, nargs="+", default=[10, 100], help="numbers to compare")
    two.add_argument("--workers-per-gpu", type=float, default=1, help="pipelines that share one")
    two.add_argument("--model", type=float, required=True, help="seconds per picture, measured on that GPU")
    two.add_argument("--files", type=float, default=0, help="seconds per picture, likewise")
    two.add_argument("--books", type=float, default=0, help="seconds per picture on the machine with the journal")
    two.add_argument("--start", type=float, default=0, help="seconds until a worker has its pipeline")
    two.add_argument("--deaths", type=float, default=0, help="of each worker per day")
    two.add_argument("--price", type=float, required=True, help="of a GPU hour")
    two.set_defaults(run=plan)
    three = commands.add_parser("ray", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    three.add_argument("--jobs", type=int, default=1000, help="that do nothing")
    three.set_defaults(run=ray_alone)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
