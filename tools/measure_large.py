"""What a 24-megapixel photograph takes, in seconds of the processor and in memory, stage by stage.

    python tools/measure_large.py matting_mask --object 0.3

Each task runs in a process of its own on one thread. Memory is what the process holds at most during a stage, beyond
what it held with the model loaded; the picture itself is named beside it. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from omnialpha.device import find_device
from omnialpha.files.pictures import write_layer
from omnialpha.files.results import write_layers
from omnialpha.layers.compositing import grey_layer, opaque
from omnialpha.layers.looking import Made
from omnialpha.pipeline import load
from omnialpha.request import Request
from omnialpha.tasks import get_task

SIZE = (4000, 6000)
MB = 2**20


def picture(share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A grainy picture [4, H, W] with a frayed disc, that share of its height, and the disc's mask [H, W]."""
    height, width = SIZE
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, width / height, width)[None]
    back = torch.stack(
        [0.4 + 0.2 * (6 * x + 3 * y).sin(), 0.5 + 0.2 * (5 * y - 2 * x).cos(), 0.5 + 0.1 * (9 * x * y).sin()]
    )
    back += 0.02 * torch.randn(height, width, generator=torch.Generator().manual_seed(0))
    down, right = y - 0.5, x - width / height / 2
    angle = torch.atan2(down, right)
    rim = share / 2 * (1 + 0.04 * (23 * angle).sin() + 0.02 * (151 * angle).sin())
    alpha = ((rim - (down.square() + right.square()).sqrt()) * height / 12 + 0.5).clamp(0, 1)
    disc = torch.tensor([0.85, 0.35, 0.2])[:, None, None] + 0.1 * (40 * (x + y)).sin()
    return opaque(torch.lerp(back, disc, alpha).clamp(0, 1)), (alpha > 0.5).float()


@contextmanager
def stage(name: str, before: float) -> Iterator[None]:
    """Prints what the statements within take."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    print(f"  {name:10}{seconds:8.1f} s{_memory('VmHWM') - before:8.0f} MB", flush=True)


def _memory(what: str) -> float:
    """MB of this process, a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def measure(task: str, share: float, folder: Path) -> None:
    """One task, in this process, on the pictures in a folder."""
    torch.set_num_threads(1)
    pipeline, model = load("micro", find_device("cpu")), 0.0
    before, itself = _memory("VmRSS"), 4 * 4 * SIZE[0] * SIZE[1] / MB
    print(f"{task}, object {share:.0%} of the height; the picture itself takes {itself:.0f} MB", flush=True)
    with stage("reading", before):
        guide = folder / "mask.png" if get_task(task).guide_role else None
        plan = Request(task=task, images=[folder / "photo.png"], guide=guide).plan(pipeline.settings)

    def timed(fitted) -> Made:
        nonlocal model
        started = time.process_time()
        made = pipeline._make(plan, fitted, lambda preview: None)
        model += time.process_time() - started
        return made

    with torch.no_grad(), stage("finishing", before):
        layers = plan.carry_out(timed)
    print(f"            of it {model:.1f} s the model")
    with stage("writing", before):
        write_layers(layers, plan.names, folder, plan.record())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="+", help="ids of tasks that start from a picture")
    parser.add_argument("--object", type=float, default=0.3, help="its size, of the picture's height (%(default)s)")
    args = parser.parse_args()
    for task in args.task:
        get_task(task)
    with tempfile.TemporaryDirectory() as folder:
        image, mask = picture(args.object)
        write_layer(image, Path(folder, "photo.png"))
        write_layer(grey_layer(mask), Path(folder, "mask.png"))
        del image, mask
        for task in args.task:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(task, args.object, Path(folder))
            )
            process.start()
            process.join()
            if process.exitcode:
                return process.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main())
