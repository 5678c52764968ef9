"""What a batch survives, tried on real ComfyUI servers on the CPU: killed servers, killed clients, hundreds of jobs.

    python tools/soak.py                      # everything, at the size of docs/reliability.md
    python tools/soak.py servers --jobs 20    # one trial, smaller

Prints a line per trial and writes soak.json into --out. The exit code is 1 where something was lost, doubled or
changed. The graph is workflows/api/omnialpha_matting.json with micro, 1 step, no guidance, on pictures of 64 x 64. The
ComfyUI is the first that comfy_server.py finds; COMFYUI_PATH names another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from comfy_server import ROOT, ComfyServer, version_of
from PIL import Image

WORKFLOW = ROOT / "workflows/api/omnialpha_matting.json"
FAST = ["--input", "Cut the object out.steps=1", "--input", "Cut the object out.guidance=1"]
CORRUPT = 20  # every 20th input: 5 %


def make_inputs(folder: Path, count: int) -> Path:
    """`count` different pictures, every 20th cut off within its header; later, and ComfyUI makes do with the rest."""
    folder.mkdir(parents=True)
    for number in range(count):
        noise = random.Random(number).randbytes(4 * 4 * 3)
        path = folder / f"{number:04}.png"
        Image.frombytes("RGB", (4, 4), noise).resize((64, 64), Image.Resampling.BICUBIC).save(path)
        if number % CORRUPT == CORRUPT // 2:
            path.write_bytes(path.read_bytes()[:20])
    return folder


class Client:
    """`python -m omnialpha batch` in a process of its own, its events counted.

    Args:
        watch: told how many jobs are done, after each.
    """

    def __init__(self, inputs: Path, out: Path, servers: list[ComfyServer], watch: Callable[[int], None] = abs):
        command = [sys.executable, "-m", "omnialpha", "batch", WORKFLOW, "--image", f"{inputs}/*.png", "--out", out]
        command += [*FAST, "--json-lines", *(word for server in servers for word in ("--server", server.url))]
        self.done, self.watch, self.end = 0, watch, {}
        self.process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # the last line of a killed client
                continue
            if event["event"] == "done":
                self.done += 1
                self.watch(self.done)
            if event["event"] == "end":
                self.end = event

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        code = self.process.wait(seconds)
        self.reader.join()
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.wait(60)


def files(out: Path) -> dict[str, bytes]:
    """Results by name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def judge(out: Path, end: dict, count: int, truth: dict[str, bytes] | None = None) -> dict:
    """Counts of a finished run; `fine` where nothing is lost, doubled or different from `truth`."""
    found, bad = files(out), len(range(CORRUPT // 2, count, CORRUPT))
    expected = {f"{number:04}-01.png" for number in range(count) if number % CORRUPT != CORRUPT // 2}
    row = {
        "jobs": count,
        "results": end.get("results"),
        "reasons": end.get("set aside"),
        "lost": len(expected - set(found)),
        "doubled": len(set(found) - expected),
        "changed": None if truth is None else sum(found.get(name) != content for name, content in truth.items()),
    }
    held = (row["results"], row["reasons"], row["lost"], row["doubled"]) == (count - bad, bad, 0, 0)
    return {**row, "fine": held and not row["changed"]}


def unbroken(inputs: Path, out: Path, servers: list[ComfyServer], count: int, seconds: float) -> tuple[dict, dict]:
    """A run that nobody disturbs: its counts, and the truth for the others."""
    client = Client(inputs, out, servers)
    client.wait(seconds)
    return judge(out, client.end, count), files(out)


def kill_server(inputs, out, servers, count, seconds, truth, rng: random.Random) -> dict:
    """SIGKILL for one server at a random moment, and a restart."""
    at, victim = rng.randint(1, max(1, count // 2)), rng.choice(servers)
    moment = threading.Event()
    client = Client(inputs, out, servers, lambda done: moment.set() if done == at else None)
    if not moment.wait(seconds):
        raise TimeoutError("the run did not come to the moment of the kill")
    time.sleep(rng.uniform(0, 2))
    victim.kill()
    time.sleep(rng.uniform(0, 5))
    victim.start()
    client.wait(seconds)
    return {**judge(out, client.end, count, truth), "killed after job": at}


def kill_client(inputs, out, servers, count, seconds, truth, rng: random.Random, kills: int) -> dict:
    """SIGKILL for the client at random moments, and the same command again, until it finishes."""
    moments = []
    for _ in range(kills):
        at, moment = rng.randint(0, max(1, count // (kills + 1))), threading.Event()
        client = Client(inputs, out, servers, lambda done, at=at, moment=moment: moment.set() if done >= at else None)
        started = time.monotonic()
        while at and not moment.is_set() and client.process.poll() is None and time.monotonic() - started < seconds:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3))
        client.kill()
        moments.append(client.done)
    client = Client(inputs, out, servers)
    client.wait(seconds)
    return {**judge(out, client.end, count, truth), "killed": kills, "jobs done between kills": moments}


def memory(inputs, out, server: ComfyServer, count: int, seconds: float, early: int = 50) -> dict:
    """Resident memory of a server after job `early` and after the last one."""
    sizes: dict[int, float] = {}
    client = Client(inputs, out, [server], lambda done: sizes.__setitem__(done, resident(server.process.pid)))
    client.wait(seconds)
    last = max(sizes)
    growth = sizes[last] / sizes[early] - 1
    row = judge(out, client.end, count)
    return {
        **row,
        "MB after job": {early: round(sizes[early]), last: round(sizes[last])},
        "growth": round(growth, 4),
        "fine": row["fine"] and growth <= 0.05,
    }


def resident(pid: int) -> float:
    """A process's resident memory in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", metavar="servers|client|memory", default=["servers", "client", "memory"])
    parser.add_argument("--jobs", type=int, default=200, help="of the trials servers and client (%(default)s)")
    parser.add_argument("--memory-jobs", type=int, default=530, help="inputs; 5 %% are corrupt (%(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="of the client (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="longest time of a run (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="the random moments (default: others each time)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / f"soak-{time.strftime('%Y%m%d-%H%M%S')}")
    args = parser.parse_args()
    if unknown := set(args.trials) - {"servers", "client", "memory"}:
        parser.error(f"no such trial: {', '.join(sorted(unknown))}")
    seed = random.randrange(10**6) if args.seed is None else args.seed
    rng, seconds, rows = random.Random(seed), args.minutes * 60, {}

    def note(name: str, row: dict, since: float) -> None:
        rows[name] = {**row, "minutes": round((time.monotonic() - since) / 60, 1)}
        print(f"{'held  ' if row['fine'] else 'FAILED'} {name}: {json.dumps(rows[name])}", flush=True)
        about = {"comfyui": version_of(servers[0].comfyui), "machine": platform.machine(), "cores": os.cpu_count()}
        report = {"seed": seed, **about, "trials": rows}
        (args.out / "soak.json").write_text(json.dumps(report, indent=1) + "\n")

    args.out.mkdir(parents=True)
    inputs = make_inputs(args.out / "in", args.jobs)
    with ExitStack() as stack:
        servers = [stack.enter_context(ComfyServer()) for _ in range(1 if args.trials == ["memory"] else 2)]
        if {"servers", "client"} & set(args.trials):
            started = time.monotonic()
            row, truth = unbroken(inputs, args.out / "unbroken", servers, args.jobs, seconds)
            note("unbroken", row, started)
        if "servers" in args.trials:
            started = time.monotonic()
            note(
                "server killed",
                kill_server(inputs, args.out / "servers", servers, args.jobs, seconds, truth, rng),
                started,
            )
        if "client" in args.trials:
            started = time.monotonic()
            note(
                "client killed",
                kill_client(inputs, args.out / "client", servers, args.jobs, seconds, truth, rng, args.kills),
                started,
            )
        if "memory" in args.trials:
            started, many = time.monotonic(), make_inputs(args.out / "many", args.memory_jobs)
            note("memory", memory(many, args.out / "memory", servers[0], args.memory_jobs, seconds), started)
    return 0 if all(row["fine"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
