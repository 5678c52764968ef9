"""Time and memory of finishing a matte, beside pymatting's closed form and its multi-level foreground, in one run.

    python tools/measure_finishing.py --size 1536x1536
    python tools/measure_finishing.py --size 6000x4000 --alone

A noisy disc with a wavy rim, and a trimap that is unknown for so many pixels to either side of it. CPU seconds of one
core, and memory above what was in use; ratios mean something between machines, seconds do not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from omnialpha.layers.foreground import foreground_colour
from omnialpha.layers.refining import refine_alpha
from omnialpha.layers.regions import grow
from omnialpha.layers.resizing import resize_plane

SEEN = 724  # side of a square as large as what the public checkpoint sees of a picture
STRIP = 256  # rows drawn at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1536x1536", help="width x height (%(default)s)")
    parser.add_argument("--unknown", type=int, default=15, help="pixels to either side of soft ones (%(default)s)")
    parser.add_argument("--alone", action="store_true", help="without pymatting, which takes very much at large sizes")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    torch.set_num_threads(1)
    picture, alpha = scene(height, width)
    trimap = torch.where(grow((alpha > 0.004) & (alpha < 0.996), args.unknown), 0.5, alpha.round())
    scale = min(1, SEEN / (height * width) ** 0.5)
    coarse = resize_plane(alpha, (round(height * scale), round(width * scale)))
    print(f"{width}x{height}, unknown {float((trimap == 0.5).float().mean()):.1%}")
    found, seconds = timed("refine_alpha", lambda: refine_alpha(picture, coarse, trimap=trimap), alpha)
    _, more = timed("foreground_colour", lambda: foreground_colour(picture, found))
    if args.alone:
        return
    import pymatting

    arrays = [plane.double().numpy().copy() for plane in (picture.movedim(0, -1), trimap)]
    tiny = arrays[0][:32, :32].copy(), arrays[1][:32, :32].copy()
    tiny[1][:8], tiny[1][8:24], tiny[1][24:] = 0, 0.5, 1
    pymatting.estimate_foreground_ml(tiny[0], pymatting.estimate_alpha_cf(*tiny))  # compiles it
    theirs, slow = timed(
        "pymatting's closed form", lambda: torch.from_numpy(pymatting.estimate_alpha_cf(*arrays)), alpha
    )
    _, slower = timed("its foreground", lambda: pymatting.estimate_foreground_ml(arrays[0], theirs.numpy()))
    print(
        f"ours to theirs: alpha {seconds / slow:.2f}, colour {more / slower:.2f}, both "
        f"{(seconds + more) / (slow + slower):.2f}"
    )


def scene(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(picture [3, H, W], alpha [H, W])."""
    picture, alpha = torch.empty(3, height, width), torch.empty(height, width)
    side, generator = max(height, width), torch.Generator().manual_seed(0)
    for top in range(0, height, STRIP):
        rows = torch.arange(top, min(top + STRIP, height)) / side
        y, x = torch.meshgrid(rows, torch.arange(width) / side, indexing="ij")
        away, up = x - width / side / 2, y - height / side / 2
        angle = torch.atan2(up, away)
        rim = 0.28 + 0.04 * torch.sin(40 * angle) + 0.01 * torch.sin(171 * angle)
        part = ((rim - (away**2 + up**2).sqrt()) / 0.006 + 0.5).clamp(0, 1)
        front = torch.stack([0.8 + 0.1 * torch.sin(20 * x), 0.3 + 0.1 * y, 0.2 + 0 * x])
        back = torch.stack([0.5 + 0.4 * torch.sin(9 * x + 3 * y), 0.4 + 0.3 * torch.cos(7 * y), 0.6 - 0.3 * x])
        noise = 0.01 * torch.randn(3, *part.shape, generator=generator)
        picture[:, top : top + STRIP] = (front * part + back * (1 - part) + noise).clamp(0, 1)
        alpha[top : top + STRIP] = part
    return picture, alpha


def timed(name: str, work: Callable, truth: torch.Tensor | None = None) -> tuple:
    """What `work` gives, and its CPU seconds; prints them, the memory at its height, and how far off an alpha is."""
    before = memory("VmRSS", reset=True)
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    line = f"{name:28}{seconds:8.2f} s"
    if before is not None:
        line += f"{memory('VmHWM') - before:8.0f} MB"
    if truth is not None:
        line += f"   alpha MSE x1000 {1e3 * float((result - truth).square().mean()):.4f}"
    print(line, flush=True)
    return result, seconds


def memory(kind: str, reset: bool = False) -> float | None:
    """MB of this process now (VmRSS) or at most since a reset (VmHWM); None where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))
    except OSError:
        return None


if __name__ == "__main__":
    main()
