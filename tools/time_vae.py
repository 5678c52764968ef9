"""What a layer costs in Qwen-Image's VAE: in this pack's library, in diffusers' own path, in ComfyUI's one at a time,
and in ComfyUI's with all layers as the frames of a video (which mixes them, so it is no choice).

    python tools/time_vae.py                      # full width, 4 layers of 128 x 128, on every ComfyUI that is found
    python tools/time_vae.py --width 16 --side 256

Weights are random and float32, on the CPU, one thread. All ways take turns in one process of ComfyUI's Python, which
borrows diffusers from ours, so their ratios hold on a busy machine; memory is the growth of a fresh process's peak.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import site
import statistics
import subprocess
import sys
import time
from pathlib import Path

import comfy_server

LIBRARY, DIFFUSERS, ALONE, VIDEO = "library", "diffusers", "ComfyUI, one by one", "ComfyUI, as a video"


def ways(width: int, layers: int, side: int) -> dict:
    """Name -> (encode, decode), each for all layers; runs inside ComfyUI's Python."""
    import comfy.sd
    import torch
    from diffusers import AutoencoderKLQwenImage

    torch.set_num_threads(1)
    torch.manual_seed(0)
    stock = AutoencoderKLQwenImage(base_dim=width, input_channels=4).eval().requires_grad_(False)
    weights = stock.state_dict()
    library = importlib.import_module("omnialpha.model.vae").vae_from_weights(weights)
    core = comfy.sd.VAE(
        sd=importlib.import_module("omnialpha.checkpoint.vae_keys").to_wan(weights), dtype=torch.float32
    )
    core = core.first_stage_model
    pictures = [torch.rand(1, 4, 1, side, side) * 2 - 1 for _ in range(layers)]
    latents = [torch.randn(1, 16, 1, side // 8, side // 8) for _ in range(layers)]
    video = torch.cat(pictures, 2), torch.cat(latents, 2)
    return {
        LIBRARY: (lambda: [library.encode(x) for x in pictures], lambda: [library.decode(z) for z in latents]),
        DIFFUSERS: (lambda: [stock.encode(x) for x in pictures], lambda: [stock.decode(z) for z in latents]),
        ALONE: (lambda: [core.encode(x) for x in pictures], lambda: [core.decode(z) for z in latents]),
        VIDEO: (lambda: core.encode(video[0]), lambda: core.decode(video[1])),
    }


def inside(order: dict) -> dict:
    """Seconds per layer of every way, or the peak memory of one."""
    import torch

    found = ways(order["width"], order["layers"], order["side"])
    with torch.inference_mode():
        if order.get("way"):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for call in found[order["way"]]:
                call()
            return {"MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}
        seconds = {name: ([], []) for name in found}
        for _ in range(order["rounds"] + 1):  # the first is thrown away
            for name, calls in found.items():
                for call, times in zip(calls, seconds[name]):
                    start = time.process_time()
                    call()
                    times.append((time.process_time() - start) / order["layers"])
        return {name: [statistics.median(times[1:]) for times in both] for name, both in seconds.items()}


def measured(comfyui: Path, order: dict) -> dict:
    """What `inside` says in a fresh process of that ComfyUI."""
    command = [comfy_server.find_python(comfyui), __file__, "--inside", json.dumps(order)]
    paths = [comfyui, comfy_server.ROOT, Path(__file__).parent]
    packages = [path for path in site.getsitepackages() if path.endswith("site-packages")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OURS": os.pathsep.join(packages)}
    done = subprocess.run(list(map(str, command)), cwd=comfyui, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"It did not run in {comfyui}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=96, help="channels of the first level (%(default)s: full size)")
    parser.add_argument("--layers", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--side", type=int, default=128, help="pixels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        sys.argv = [sys.argv[0], "--cpu"]  # ComfyUI reads it
        sys.path += os.environ["OURS"].split(os.pathsep)  # behind its own packages
        import comfy.options

        comfy.options.enable_args_parsing()
        print(json.dumps(inside(json.loads(args.inside))))
        return 0
    if why_not := comfy_server.missing_comfyui():
        print(why_not, file=sys.stderr)
        return 2
    order = {key: vars(args)[key] for key in ("width", "layers", "side", "rounds")}
    for version, folder, why_not in comfy_server.find_comfyuis():
        if why_not:
            print(f"ComfyUI {version}: {why_not}")
            continue
        seconds = measured(folder, order)
        print(f"ComfyUI {version}, {args.layers} layers of {args.side} x {args.side}, processor seconds per layer:")
        for name, (encode, decode) in seconds.items():
            times = [f"{one:.3f} ({one / ours:.2f} x)" for one, ours in zip((encode, decode), seconds[LIBRARY])]
            megabytes = measured(folder, {**order, "way": name})["MB"]
            print(f"  {name:22} encode {times[0]:18} decode {times[1]:18} peak {megabytes:6.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
