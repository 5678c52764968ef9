"""Trains and measures what docs/experiments.md reports, and puts its tables and plots there.

    python tools/experiments.py                 what is missing, then tables and plots
    python tools/experiments.py --only stacks   one part: rope, stacks, joint, vae or cross
    python tools/experiments.py --tables        tables and plots from what has been measured so far

Objects come from npm packages, as for `make micro`. A run that was stopped goes on where it was. Every run's numbers
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


def rope_runs(seed: int) -> list[Run]:
    """Experiment 2; its first run is experiment 3's as well."""
    return table_runs([("joint", (), tuple(TASKS)), ("flat", ("rope=2d",), tuple(TASKS))], seed)


def joint_runs(seed: int) -> list[Run]:
    """Experiment 3: one thing is changed at a time."""
    steps = yaml.safe_load((CONFIGS / "transformer.yaml").read_text())["steps"]
    rows = [("joint", (), tuple(TASKS))]
    rows += [(f"single-{task}", (weights([task]),), (task,)) for task in SINGLE]
    rows += [
        (f"without-{family}", (weights(task for task in TASKS if TASKS[task].family != family),),
         tuple(task for task in TASKS if TASKS[task].family != family))
        for family in FAMILIES
    ]  # fmt: skip
    rows += [("joint-long", (f"steps={len(SINGLE) * steps}",), SINGLE)]
    return table_runs(rows, seed)


def table_runs(rows, seed: int) -> list[Run]:
    """Runs of rows (name, changes, tasks to measure)."""
    return [
        Run(f"{name}-{seed}", (*changes, f"seed={seed}"), ((TEST, tasks),))
        for name, changes, tasks in rows
    ]


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


def prepare() -> None:
    """Data sets and caches, where they are missing."""
    for out, (config, changes) in DATA.items():
        if not Path("data", out, "triplets.jsonl").is_file():
            sets = [word for change in changes for word in ("--set", change)]
            call("data", "build", config, "--packages", "runs/node_modules", *sets, "--out", f"data/{out}")
    for name, out in (("cache", "few-cache"), ("stack-cache", "stack-cache")):
        call("train", "cache", str(CONFIGS / f"{name}.yaml"), "--out", f"runs/{out}")


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


# part of the experiments -> its training runs, or what does all of it
TRAINED = {"rope": rope_runs, "stacks": stack_runs, "joint": joint_runs}
OTHERS = {"vae": vae_experiment, "cross": cross_domain}


def save(results: dict) -> None:
    """Keep the numbers."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*TRAINED, *OTHERS), help="one part of the experiments")
    parser.add_argument("--tables", action="store_true", help="no training: tables and plots of what there is")
    args = parser.parse_args()
    os.chdir(ROOT)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    wanted = [part for part in (*TRAINED, *OTHERS) if args.only in (None, part) and not args.tables]
    if set(wanted) & set(TRAINED):
        prepare()
    # One seed of everything, then the next: a part of the answer comes early.
    for run in (run for seed in SEEDS for part in wanted if part in TRAINED for run in TRAINED[part](seed)):
        if run.name not in results:
            train(run)
            results[run.name] = measure(run.folder / "checkpoint", run.measures)
            save(results)
    for part in wanted:
        if part in OTHERS:
            OTHERS[part](results)
    experiment_tables.write(results)


if __name__ == "__main__":
    main()
