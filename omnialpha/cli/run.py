"""The command `run`: from the command line's words to PNG files."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ..checkpoint.folder import Checkpoint
from ..device import find_device
from ..files.results import new_folder, write_layers
from ..pipeline import load
from ..request import Plan, Request


def run(args) -> list[Path]:
    """Checks everything, loads the model, samples, writes. Gives the files written.

    Args:
        args: the parsed options of `main.build_parser`.

    Raises:
        OmniAlphaError: whatever of the request, the files or the disk cannot be used.
    """
    device = find_device(args.device)
    checkpoint = Checkpoint(args.checkpoint, vae=args.vae, lora=args.lora).check()
    plan = request_of(args).plan(checkpoint.settings)
    with new_folder(args.out or Path("out") / (args.task or "instruction")) as out:
        _say(f"{checkpoint.folder.name}: {plan.instruction}")
        _say(_sizes(plan))
        pipeline = load(checkpoint, device, lora_scale=args.lora_scale, offload=args.offload)
        layers = sample(pipeline, plan)
        record = plan.record() | checkpoint.record() | {"lora_scale": args.lora_scale}
        paths = write_layers(layers, plan.names, out, record, args.format)
    for path in paths:
        print(path)
    return paths


def request_of(args) -> Request:
    """What the command line asks for."""
    return Request(
        task=args.task,
        instruction=args.instruction,
        images=args.image,
        guide=args.guide,
        guide_polarity=args.guide_polarity,
        text=args.text,
        num_targets=args.targets,
        seed=args.seed,
        steps=args.steps,
        guidance=args.guidance,
        negative=args.negative,
        size=args.size,
        fit=args.fit,
        clean=not args.keep_hidden,
        snap=args.snap_alpha,
        pixels=args.pixels,
        look=args.look,
    )


def sample(pipeline, plan: Plan, label: str = "sampling") -> list[torch.Tensor]:
    """Runs a plan under progress bars, which only a terminal gets to see."""
    from tqdm import tqdm

    def move(bar: tqdm, place: float) -> None:
        bar.update(place - bar.n)

    steps = tqdm(total=plan.steps * plan.passes, desc=label, unit="step", leave=False, disable=None)
    # Keeping the pixels of a small picture takes no time to speak of.
    finishing = tqdm(total=1.0, desc="finishing", bar_format="{l_bar}{bar}", delay=2, leave=False, disable=None)
    with steps, finishing:
        return pipeline.run(plan, lambda step, _, preview: move(steps, step), lambda done: move(finishing, done))


def _sizes(plan: Plan) -> str:
    """What fitting does, in one line."""
    frame, (height, width) = plan.frame, plan.frame.size
    line = f"working at {width}x{height}"
    if tuple(frame.source) != (height, width):
        line += f" ({frame.mode}), results in {frame.source[1]}x{frame.source[0]}"
    steps = "1 step" if plan.steps == 1 else f"{plan.steps} steps"
    if plan.request.pixels == "keep" and plan.task is not None and plan.task.image_role:
        line += "; own pixels kept" + (", with a closer look" if plan.look == "close" else "")
    return f"{line}; {steps}, guidance {plan.guidance:g}, seed {plan.seed}"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
