"""Trains and measures what docs/experiments.md reports, and puts its tables and plots there.

    python tools/experiments.py                 what is missing, then tables and plots
    python tools/experiments.py --only rope     one experiment
    python tools/experiments.py --tables        tables and plots from what has been measured so far

`make micro` has to have made its data, VAE and cache. A run that was stopped goes on where it was. Every run's numbers
are kept in docs/experiments/results.json, so the tables need no run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import experiment_tables
import yaml

from omnialpha.data.parallel import write_atomically
from omnialpha.tasks import FAMILIES, TASKS

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = Path("configs/experiments")
RUNS = Path("runs/experiments")
RESULTS = Path("docs/experiments/results.json")
SEEDS = (0, 1, 2)
RECORDS = 48  # held-out records per task
OPEN_RECORDS = 16  # where several answers of several steps each are drawn
SINGLE = ("matting_auto", "removal_mask", "decomposition_auto", "text_to_rgba")
TEST = "data/test"
LAYERS = (3, 4, 5, 6)  # of the stacks to test on; training sees 2 and 3


@dataclass(frozen=True)
class Run:
    """One training run and what is measured of it.

    Attributes:
        name: of its folder; the seed is added.
        config: a file of configs/experiments.
        changes: key=value overrides.
        measures: (data set, tasks) pairs.
    """

    name: str
    config: str
    changes: tuple[str, ...]
    measures: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return RUNS / self.name


def weights(tasks) -> str:
    """An override that trains these tasks alone, all alike."""
    return f"weights={json.dumps(dict.fromkeys(tasks, 1))}"


def joint_runs(seed: int) -> list[Run]:
    """Experiments 2 and 3: one thing is changed at a time."""
    steps = yaml.safe_load((CONFIGS / "transformer.yaml").read_text())["steps"]
    every = tuple(TASKS)
    rows = [("joint", (), every), ("flat", ("rope=2d",), every)]
    rows += [(f"single-{task}", (weights([task]),), (task,)) for task in SINGLE]
    rows += [
        (f"without-{family}", (weights(task for task in TASKS if TASKS[task].family != family),),
         tuple(task for task in TASKS if TASKS[task].family != family))
        for family in FAMILIES
    ]  # fmt: skip
    rows += [("joint-long", (f"steps={len(SINGLE) * steps}",), SINGLE)]
    return [
        Run(f"{name}-{seed}", "transformer.yaml", (*changes, f"seed={seed}"), ((TEST, tasks),))
        for name, changes, tasks in rows
    ]


def stack_runs(seed: int) -> list[Run]:
    """Experiment 4."""
    changes = (weights(["decomposition_auto", "stack"]), "cache=runs/stack-cache", f"seed={seed}")
    rows = [("stack", ()), ("stack-flat", ("rope=2d",))]
    measures = tuple((f"data/stacks-{layers}-test", ("stack",)) for layers in LAYERS)
    return [Run(f"{name}-{seed}", "transformer.yaml", (*changes, *more), measures) for name, more in rows]


def call(*words: str) -> None:
    """Run the command line; its errors are ours."""
    print("$ python -m omnialpha", *words, flush=True)
    subprocess.run([sys.executable, "-m", "omnialpha", *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def train(run: Run) -> None:
    """Train a run, or go on with it."""
    sets = [word for change in run.changes for word in ("--set", change)]
    call("train", "transformer", str(CONFIGS / run.config), *sets, "--threads", "1", "--out", str(run.folder))


def measure(checkpoint: str | Path, measures, baselines: bool = False, records: int = RECORDS) -> dict:
    """Data set -> task -> method -> measure that decides -> [mean, standard error]."""
    from omnialpha.data.records import read_records
    from omnialpha.evaluation.measures import deciding, is_open
    from omnialpha.evaluation.run import evaluate
    from omnialpha.running import find_device, load

    pipeline, found = load(checkpoint, find_device("cpu")), {}
    for data, tasks in measures:
        held_out = read_records(data).of_split("test")
        for group, count, more in ((False, records, {}), (True, OPEN_RECORDS, {"steps": 8})):
            chosen = [task for task in tasks if is_open(task) == group]
            results = evaluate(pipeline, held_out[:count], chosen, baselines=baselines, **more) if chosen else None
            for task in chosen:
                found.setdefault(data, {})[task] = {
                    method: {name: _pair(results.summary_of(task, method, name)) for name in deciding(task)}
                    for method in results.methods(task)
                }
    return found


def _pair(summary: dict) -> list[float]:
    return [summary["mean"], summary["standard_error"]]


def prepare_stacks() -> None:
    """The data and the cache of experiment 4."""
    config, packages = str(CONFIGS / "stacks.yaml"), ("--packages", "runs/node_modules")
    for layers in (2, 3):
        out = f"data/stacks-{layers}"
        if not Path(out, "triplets.jsonl").is_file():
            call("data", "build", config, *packages, "--set", f"layers={layers}", "--out", out)
    for layers in LAYERS:
        out, changes = f"data/stacks-{layers}-test", (f"layers={layers}", "split=test", "count=64", "grid=1", "seed=6")
        if not Path(out, "triplets.jsonl").is_file():
            sets = [word for change in changes for word in ("--set", change)]
            call("data", "build", config, *packages, *sets, "--out", out)
    call("train", "cache", str(CONFIGS / "stack-cache.yaml"), "--out", "runs/stack-cache")


def vae_experiment(results: dict) -> None:
    """Experiment 1: a VAE for RGB, its opaque initialisation, and that one taught alpha."""
    loss = {"composite_l1": 1.0, "chroma": 1.0, "kl": 3e-4}
    rows = {
        "rgb": ("channels=3", "blend=1.0", 'mix={"background": 1, "composite": 1}', f"loss={json.dumps(loss)}"),
        "opaque": (f"rgb={RUNS}/vae-rgb-{{seed}}/vae", f"loss={json.dumps(loss | {'reference_kl': 1e-4})}", "warm=20"),
    }
    for seed in SEEDS:
        for name, changes in rows.items():
            run = f"vae-{name}-{seed}"
            if run in results:
                continue
            sets = [word.format(seed=seed) if "{seed}" in word else word for word in (*changes, f"seed={seed}")]
            sets = [word for change in sets for word in ("--set", change)]
            call("train", "vae", str(CONFIGS / "vae.yaml"), *sets, "--threads", "1", "--out", str(RUNS / run))
            results[run] = json.loads((RUNS / run / "training.json").read_text())["held_out"]
            save(results)


def cross_domain(results: dict) -> None:
    """Experiment 5: the built-in checkpoint on the kind of picture it learnt from, and on another."""
    from omnialpha.evaluation.measures import is_open

    if "cross" in results:
        return
    if not Path("data/cross/triplets.jsonl").is_file():
        call("data", "build", "configs/micro/cross.yaml", "--out", "data/cross")
    tasks = tuple(task for task in TASKS if not is_open(task))
    results["cross"] = measure("micro", ((TEST, tasks), ("data/cross", tasks)), baselines=True, records=2 * RECORDS)
    save(results)


def save(results: dict) -> None:
    """Keep the numbers."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("vae", "joint", "stacks", "cross"), help="one part of the experiments")
    parser.add_argument("--tables", action="store_true", help="no training: tables and plots of what there is")
    args = parser.parse_args()
    os.chdir(ROOT)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    wanted = lambda part: not args.tables and args.only in (None, part)  # noqa: E731
    runs = []
    if wanted("joint"):
        runs += [run for seed in SEEDS for run in joint_runs(seed)]
    if wanted("stacks"):
        prepare_stacks()
        runs += [run for seed in SEEDS for run in stack_runs(seed)]
    for run in runs:
        if run.name not in results:
            train(run)
            results[run.name] = measure(run.folder / "checkpoint", run.measures)
            save(results)
    if wanted("vae"):
        vae_experiment(results)
    if wanted("cross"):
        cross_domain(results)
    experiment_tables.write(results)


if __name__ == "__main__":
    main()
