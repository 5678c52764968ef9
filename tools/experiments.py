"""Trains and measures what docs/experiments.md reports, and puts its tables and plots there.

    python tools/experiments.py                 what is missing, then tables and plots
    python tools/experiments.py --only stacks   one part; the list is PARTS
    python tools/experiments.py --tables        tables and plots from what has been measured so far

Objects come from npm packages, as for `make micro`. A run that was stopped goes on where it was; --share lets several
processes work at a time. Every run's numbers are kept in docs/experiments/results.json, so the tables need no run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import experiment_tables
import yaml

from omnialpha.files.writing import write_over
from omnialpha.tasks import FAMILIES, TASKS

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = Path("configs/experiments")
RUNS = Path("runs/experiments")
RESULTS = Path("docs/experiments/results.json")
SEEDS = (0, 1, 2)
RECORDS = 32  # held-out records per task
OPEN_RECORDS = 8  # where several answers of several steps each are drawn
SINGLE = ("matting_auto", "removal_mask", "decomposition_auto", "text_to_rgba")
TEST = "data/test"
LAYERS = (3, 4, 5, 6)  # of the stacks to test on; training sees 2 and 3
STACKS = str(CONFIGS / "stacks.yaml")
# data set -> configuration, and what is changed of it
DATA = {
    "few": ("configs/micro/triplets.yaml", ("count=6400",)),
    "few-portraits": ("configs/micro/portraits.yaml", ("count=1600",)),
    **{f"stacks-{layers}": (STACKS, (f"layers={layers}",)) for layers in (2, 3)},
    **{
        f"stacks-{layers}-test": (STACKS, (f"layers={layers}", "split=test", "count=64", "grid=1", "seed=6"))
        for layers in LAYERS
    },
}


Jobs = dict[str, Callable[[], dict]]


@dataclass(frozen=True)
class Run:
    """One training run and what is measured of it.

    Attributes:
        name: of its folder; the seed is added.
        changes: key=value overrides of configs/experiments/transformer.yaml.
        measures: (data set, tasks) pairs.
    """

    name: str
    changes: tuple[str, ...]
    measures: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return RUNS / self.name


def weights(tasks) -> str:
    """An override that trains these tasks alone, all alike."""
    return f"weights={json.dumps(dict.fromkeys(tasks, 1))}"


def long() -> str:
    """An override for a run that takes as long as the single-task ones together."""
    steps = yaml.safe_load((CONFIGS / "transformer.yaml").read_text(encoding="utf-8"))["steps"]
    return f"steps={len(SINGLE) * steps}"


def rope_runs(seed: int) -> list[Run]:
    """Experiment 2; its first run is experiment 3's as well."""
    return on_triplets([("joint-long", [long()], TASKS), ("flat-long", [long(), "rope=2d"], TASKS)], seed)


def joint_runs(seed: int) -> list[Run]:
    """Experiment 3: single tasks, and all of them in as many steps."""
    rows = [("joint", [], SINGLE), *((f"single-{task}", [weights([task])], [task]) for task in SINGLE)]
    return on_triplets(rows, seed)


def interference_runs(seed: int) -> list[Run]:
    """Experiment 3: a family left out."""
    kept = {family: [task for task in TASKS if TASKS[task].family != family] for family in FAMILIES}
    return on_triplets([(f"without-{name}", [long(), weights(tasks)], tasks) for name, tasks in kept.items()], seed)


def on_triplets(rows: Iterable[tuple[str, list[str], Iterable[str]]], seed: int) -> list[Run]:
    """Runs of rows (name, changes, tasks to measure)."""
    return [Run(f"{name}-{seed}", (*changes, f"seed={seed}"), ((TEST, tuple(tasks)),)) for name, changes, tasks in rows]


def stack_runs(seed: int) -> list[Run]:
    """Experiment 4."""
    changes = (weights(["decomposition_auto", "stack"]), "cache=runs/stack-cache", f"seed={seed}")
    rows = [("stack", ()), ("stack-flat", ("rope=2d",))]
    measures = tuple((f"data/stacks-{layers}-test", ("stack",)) for layers in LAYERS)
    return [Run(f"{name}-{seed}", (*changes, *more), measures) for name, more in rows]


def call(*words: str) -> None:
    """Run the command line; its errors are ours."""
    print("$ python -m omnialpha", *words, flush=True)
    subprocess.run([sys.executable, "-m", "omnialpha", *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def train(run: Run) -> None:
    """Train a run, or go on with it."""
    sets = [word for change in run.changes for word in ("--set", change)]
    call("train", "transformer", str(CONFIGS / "transformer.yaml"), *sets, "--threads", "1", "--out", str(run.folder))


def measure(checkpoint: str | Path, measures, baselines: bool = False, records: int = RECORDS) -> dict:
    """Data set -> task -> method -> measure that decides -> [mean, standard error]."""
    from omnialpha.data.records import read_records
    from omnialpha.device import find_device
    from omnialpha.evaluation.measures import deciding, is_open
    from omnialpha.evaluation.run import evaluate
    from omnialpha.pipeline import load

    pipeline, found = load(checkpoint, find_device("cpu")), {}
    for data, tasks in measures:
        held_out = read_records(data).of_split("test")
        for group, count, more in ((False, records, {}), (True, OPEN_RECORDS, {"steps": 8})):
            chosen = [task for task in tasks if is_open(task) == group]
            how = {"baselines": baselines, "pixels": "redraw", **more}  # what the model itself can do
            results = evaluate(pipeline, held_out[:count], chosen, **how) if chosen else None
            for task in chosen:
                found.setdefault(data, {})[task] = {
                    method: {name: _pair(results.summary_of(task, method, name)) for name in deciding(task)}
                    for method in results.methods(task)
                }
    return found


def _pair(summary: dict) -> list[float]:
    return [summary["mean"], summary["standard_error"]]


def prepare() -> None:
    """Data sets and caches, where they are missing."""
    for out, (config, changes) in DATA.items():
        if not Path("data", out, "triplets.jsonl").is_file():
            sets = [word for change in changes for word in ("--set", change)]
            call("data", "build", config, "--packages", "runs/node_modules", *sets, "--out", f"data/{out}")
    for name, out in (("cache", "few-cache"), ("stack-cache", "stack-cache")):
        call("train", "cache", str(CONFIGS / f"{name}.yaml"), "--out", f"runs/{out}")


def train_and_measure(run: Run) -> dict:
    """Everything about one run."""
    train(run)
    return measure(run.folder / "checkpoint", run.measures)


def teach_alpha(seed: int) -> dict:
    """Experiment 1: a VAE for RGB, its opaque initialisation, and that one taught alpha; before and after the last."""
    loss, found = {"composite_l1": 1.0, "chroma": 1.0, "kl": 3e-4}, {}
    rgb, opaque = (RUNS / f"vae-{kind}-{seed}" for kind in ("rgb", "opaque"))
    rows = {
        rgb: ("channels=3", "blend=1.0", 'mix={"background": 1, "composite": 1}', f"loss={json.dumps(loss)}"),
        opaque: (f"rgb={rgb / 'vae'}", f"loss={json.dumps(loss | {'reference_kl': 1e-4})}"),
    }
    for folder, changes in rows.items():
        sets = [word for change in (*changes, f"seed={seed}") for word in ("--set", change)]
        call("train", "vae", str(CONFIGS / "vae.yaml"), *sets, "--threads", "1", "--out", str(folder))
        found = json.loads((folder / "training.json").read_text())["held_out"]
    return found


def away_from_home() -> dict:
    """Experiment 5: the built-in checkpoint on the kind of picture it learnt from, and on another."""
    from omnialpha.evaluation.measures import is_open

    if not Path("data/cross/triplets.jsonl").is_file():
        call("data", "build", "configs/micro/cross.yaml", "--out", "data/cross")
    tasks = tuple(task for task in TASKS if not is_open(task))
    return measure("micro", ((TEST, tasks), ("data/cross", tasks)), baselines=True, records=RECORDS)


def runs(rows: Callable[[int], list[Run]]) -> Callable[[int], Jobs]:
    """A part that consists of training runs."""
    return lambda seed: {run.name: partial(train_and_measure, run) for run in rows(seed)}


# part -> the jobs of a seed: name in results.json -> what finds its numbers
PARTS: dict[str, Callable[[int], Jobs]] = {
    "rope": runs(rope_runs),
    "stacks": runs(stack_runs),
    "joint": runs(joint_runs),
    "interference": runs(interference_runs),
    "vae": lambda seed: {f"vae-{seed}": partial(teach_alpha, seed)},
    "cross": lambda seed: {"cross": away_from_home} if seed == 0 else {},
}


def known() -> dict:
    """What has been measured."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def keep(name: str, found: dict) -> None:
    """Add a job's numbers; several processes may do so at a time."""
    import fcntl

    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with Path(RUNS, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = json.dumps(known() | {name: found}, indent=1, sort_keys=True)
        write_over(RESULTS, f"{text}\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part of the experiments; repeatable")
    parser.add_argument(
        "--share", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every N-th job from K on"
    )
    parser.add_argument("--tables", action="store_true", help="no training: tables and plots of what there is")
    args = parser.parse_args()
    os.chdir(ROOT)
    parts = args.only or list(PARTS)
    if not args.tables:
        if parts != ["cross"]:  # which trains nothing
            prepare()
        RUNS.mkdir(parents=True, exist_ok=True)
        # One seed of everything, then the next: a part of the answer comes early.
        jobs: Jobs = {}
        for seed in SEEDS:
            for part in parts:
                jobs |= PARTS[part](seed)
        for name in list(jobs)[args.share[0] :: args.share[1]]:
            if name not in known():
                keep(name, jobs[name]())
    experiment_tables.write(known())


if __name__ == "__main__":
    main()
