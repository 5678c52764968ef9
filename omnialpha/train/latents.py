"""Compose triplets, encode them once, and keep the latents: training then never runs the VAE.

    python -m omnialpha.train.latents --packages node_modules --vae runs/vae --out runs/latents --minutes 10

A shard holds pictures of one size. Four objects over four backgrounds give sixteen composites for twenty-four
encodings. Beside each latent lies the picture as the text encoder's vision tower sees it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..data.triplets import Composer, composite, load_bank, opaque
from ..layers import fit_size
from ..tasks import GUIDES
from ..text import condition_image
from ..vae import load_vae, single_frame
from .assemble import MICRO_SETTINGS

# Shape of the picture, and how often: mostly square, now and then wide or tall.
ASPECTS = ((1, 1), (1, 1), (1, 1), (3, 4), (4, 3))
# Layers in the sequence (inputs and targets together): how many shards of each, out of ten.
MIX = {1: 1, 2: 4, 3: 4, 4: 1}
# A model this small learns to draw what it meets often: three portraits in four show one of these.
FAMILIAR = (
    "red apple", "green apple", "banana", "tangerine", "lemon", "strawberry", "watermelon", "grapes", "cherries",
    "pear", "peach", "pineapple", "carrot", "tomato", "eggplant", "avocado", "broccoli", "mushroom", "pizza",
    "doughnut", "cookie", "cupcake", "red heart", "blue heart", "green heart", "purple heart", "sun", "full moon",
    "star", "cloud", "rainbow", "balloon", "soccer ball", "basketball", "rocket", "automobile", "sailboat", "house",
    "tulip", "rose", "sunflower", "cherry blossom", "evergreen tree", "deciduous tree", "cat face", "dog face",
    "pig face", "panda", "lion", "rabbit face", "fox", "koala", "penguin", "octopus", "tropical fish", "butterfly",
    "grinning face", "key", "bell", "top hat", "crown", "gem stone", "taxi", "snowman",
)  # fmt: skip
GRID = 4
GRIDS_PER_SHARD = 12


def layer_sizes(layers: int) -> list[tuple[int, int]]:
    """Sizes in pixels that a layer of a sequence of `layers` can have under micro's pixel budget."""
    budget, multiple = MICRO_SETTINGS.pixel_budget / layers, MICRO_SETTINGS.size_multiple
    return [fit_size(h * 1000, w * 1000, budget, multiple) for h, w in ASPECTS]


def compose_portraits(composer: Composer, size: tuple[int, int]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Objects alone, for drawing from text: `foreground` [count, h, w, 4], pairs that name each object, and names.

    A name says nothing about place, tilt or tint, so none of them varies: micro is small, and what the text cannot
    decide it could only average.
    """
    count = GRIDS_PER_SHARD * GRID
    familiar = [index for index, name in enumerate(composer.bank.names) if name in FAMILIAR] or [0]
    anything = composer.rng.integers(len(composer.bank.names), size=count)
    chosen = np.where(composer.rng.random(count) < 0.75, composer.rng.choice(familiar, count), anything)
    drawn = [composer.portrait(size, int(index)) for index in chosen]
    layers = np.stack([layer for layer, _ in drawn]).astype(np.float32)
    pairs = np.stack([np.arange(count), np.zeros(count, int)], axis=1)
    return {"foreground": layers, "pairs": pairs}, [name for _, name in drawn]


def compose_shard(composer: Composer, size: tuple[int, int], guides: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """Layers by role [count, h, w, 4] in [0, 1], the pairs (object, background) of each composite, and names."""
    layers: dict[str, list] = {role: [] for role in ("foreground", "background", "composite", *GUIDES)}
    pairs, names = [], []
    for block in range(GRIDS_PER_SHARD):
        objects = [composer.foreground(size) for _ in range(GRID)]
        scenes = [composer.background(size) for _ in range(GRID)]
        names += [name for _, name in objects]
        layers["foreground"] += [layer for layer, _ in objects]
        layers["background"] += [opaque(scene) for scene in scenes]
        for layer, _ in objects if guides else []:
            for role, plane in composer.guides(layer[..., 3]).items():
                layers[role].append(opaque(plane))
        for i, (layer, _) in enumerate(objects):
            for j, scene in enumerate(scenes):
                layers["composite"].append(opaque(composite(layer, scene)))
                pairs.append((block * GRID + i, block * GRID + j))
    stacked = {role: np.stack(values).astype(np.float32) for role, values in layers.items() if values}
    return {**stacked, "pairs": np.array(pairs)}, names


@torch.no_grad()
def encode_shard(vae, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Normalised latents `role` [count, 16, h/8, w/8] float16 and `seen.role` uint8 [count, H, W, 3] for the tower."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1)
    tensors = {"pairs": torch.from_numpy(arrays["pairs"])}
    for role, layers in arrays.items():
        if role == "pairs":
            continue
        layers = torch.from_numpy(layers).permute(0, 3, 1, 2)
        latents = [vae.encode((part * 2 - 1)[:, :, None]).latent_dist.mode()[:, :, 0] for part in layers.split(8)]
        tensors[role] = ((torch.cat(latents) - mean) / std).half().contiguous()
        tensors[f"seen.{role}"] = torch.from_numpy(np.stack([np.asarray(condition_image(layer)) for layer in layers]))
    return tensors


def write_shards(args: argparse.Namespace) -> None:
    """Write shards until the time is up; each appears whole or not at all."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    composer = Composer(load_bank(args.packages, args.split), args.split, seed=args.seed)
    vae = single_frame(load_vae(args.vae))
    order = [layers for layers, count in MIX.items() for _ in range(count)]
    started = time.monotonic()
    index = len(list(out.glob(f"{args.seed}-*.safetensors")))
    while time.monotonic() - started < args.minutes * 60:
        layers = order[(index * 7) % len(order)]  # 7 and 10 share no factor: every kind early on
        sizes = layer_sizes(layers)
        size = sizes[composer.rng.integers(len(sizes))]
        if layers == 1:
            arrays, names = compose_portraits(composer, size)
        else:
            arrays, names = compose_shard(composer, size, guides=layers > 2)
        metadata = {"layers": str(layers), "names": json.dumps(names)}
        partial, final = out / f"{args.seed}-{index:04d}.tmp", out / f"{args.seed}-{index:04d}.safetensors"
        save_file(encode_shard(vae, arrays), partial, metadata=metadata)
        os.replace(partial, final)
        index += 1
        print(f"shard {index}: {layers} layers of {size}, minute {(time.monotonic() - started) / 60:.1f}", flush=True)


class Shards:
    """The latents of a folder in memory, by number of layers in the sequence."""

    def __init__(self, folder: Path | str):
        self.by_layers: dict[int, list[tuple[dict[str, torch.Tensor], list[str]]]] = {layers: [] for layers in MIX}
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            self.by_layers[int(metadata["layers"])].append((tensors, json.loads(metadata["names"])))

    def draw(self, layers: int, count: int, rng: np.random.Generator) -> dict:
        """`count` samples of one shard: latents by role [count, 16, h, w] float32, "seen.role" uint8, and "names"."""
        tensors, names = self.by_layers[layers][rng.integers(len(self.by_layers[layers]))]
        chosen = torch.from_numpy(rng.integers(len(tensors["pairs"]), size=count))
        objects, scenes = tensors["pairs"][chosen].unbind(1)
        batch: dict = {"names": [names[i] for i in objects.tolist()]}
        for key, values in tensors.items():
            role = key.removeprefix("seen.")
            rows = {"composite": chosen, "background": scenes}.get(role, objects)
            if role != "pairs":
                batch[key] = values[rows].float() if key == role else values[rows]
        return batch


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, help="node_modules folder with the emoji packages")
    parser.add_argument("--vae", required=True, help="the trained VAE")
    parser.add_argument("--out", required=True, help="folder for the shards")
    parser.add_argument("--split", default="train", choices=("train", "test"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="also names the shards: use another for a second process")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    write_shards(args)


if __name__ == "__main__":
    main()
