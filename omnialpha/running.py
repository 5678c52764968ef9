"""The command `run`: from the command line's words to PNG files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .checkpoint import check_folder, find_checkpoint
from .errors import OmniAlphaError
from .output import new_folder, write_layers
from .request import Request, as_plane, plan
from .settings import read_settings


def run(args) -> list[Path]:
    """Checks everything, loads the model, samples, writes. Gives the files written.

    Args:
        args: the parsed options of `cli.build_parser`.

    Raises:
        OmniAlphaError: whatever of the request, the files or the disk cannot be used.
    """
    device = find_device(args.device)
    folder = find_checkpoint(args.checkpoint)
    check_folder(folder, vae_elsewhere=args.vae is not None)
    request = plan(
        read_settings(folder),
        args.task,
        args.instruction,
        args.image,
        None if args.guide is None else as_plane(args.guide, args.guide_polarity),
        args.text,
        args.targets,
        args.seed,
        args.steps,
        args.guidance,
        args.negative,
        args.size,
        args.fit,
        not args.keep_hidden,
        args.snap_alpha,
    )
    with new_folder(args.out or Path("out") / (args.task or "instruction")) as out:
        _say(f"{folder.name}: {request.instruction}")
        _say(_sizes(request))
        pipeline = load(args.checkpoint, device, args.vae, args.lora, args.lora_scale, args.offload)
        layers = sample(pipeline, request)
        paths = write_layers(layers, request.names, out, record(args, request), args.format)
    for path in paths:
        print(path)
    return paths


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        OmniAlphaError: unknown, or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OmniAlphaError(f"There is no device '{name}' here ({reason}). Use --device cpu or auto.") from error
    return device


def load(checkpoint, device: torch.device, vae=None, lora=None, lora_scale: float = 1.0, offload: bool = False):
    """The pipeline on a device, without the libraries' progress bars.

    Args:
        offload: leave the parts in main memory and bring each one in while it works.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    from .pipeline import OmniAlphaPipeline

    pipeline = OmniAlphaPipeline.from_pretrained(checkpoint, vae=vae, lora=lora, lora_scale=lora_scale)
    if offload and device.type != "cpu":
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)


def sample(pipeline, request: Request, label: str = "sampling") -> list[torch.Tensor]:
    """Runs a request under a progress bar, which only a terminal gets to see."""
    from tqdm import tqdm

    with tqdm(total=request.steps, desc=label, unit="step", leave=False, disable=None) as bar:
        return pipeline.run(request, lambda step, steps, preview: bar.update(step - bar.n))


def record(args, request: Request) -> dict[str, Any]:
    """What made a picture, for its text chunk. File names only: where they lay is nobody's business."""
    name = Path(args.checkpoint).name
    return {
        "version": __version__,
        "task": args.task,
        "instruction": request.instruction,
        "negative": request.negative,
        "text": args.text,
        "images": [Path(image).name for image in args.image],
        "guide": args.guide and Path(args.guide).name,
        "guide_polarity": args.guide_polarity,
        "checkpoint": name,
        "vae": args.vae and Path(args.vae).name,
        "lora": args.lora and Path(args.lora).name,
        "lora_scale": args.lora_scale,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "size": list(reversed(request.fitted.size)),
        "fit": args.fit,
        "snap_alpha": args.snap_alpha,
        "keep_hidden": args.keep_hidden,
    }


def _sizes(request: Request) -> str:
    """What fitting does, in one line."""
    frame, (height, width) = request.fitted.frame, request.fitted.size
    line = f"working at {width}x{height}"
    if tuple(frame.source) != (height, width):
        line += f" ({frame.mode}), results in {frame.source[1]}x{frame.source[0]}"
    steps = "1 step" if request.steps == 1 else f"{request.steps} steps"
    return f"{line}; {steps}, guidance {request.guidance:g}, seed {request.seed}"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
