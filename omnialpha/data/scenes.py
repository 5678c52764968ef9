"""A block of a data set: what its pictures and records are, a pure function of the seed and the block's number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from .backgrounds import draw_background
from .compose import Composer, Layer, composite
from .materials import Materials

if TYPE_CHECKING:
    from .config import BuildConfig

Size = tuple[int, int]  # height, width


@dataclass
class Block:
    """Pictures by relative path, float32 [h, w, 3 or 4] in [0, 1] with what 8 bits keep; records that name them.

    `problems` says which objects and photographs could not be read.
    """

    number: int
    split: str
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)
    problems: set[str] = field(default_factory=set)

    def keep(self, kind: str, name: str, pixels: np.ndarray) -> str:
        """Take a picture in; its path."""
        path = f"{kind}/{self.number:06d}-{name}.png"
        self.pictures[path] = to_8_bits(pixels)
        return path

    def record(self, name: str, **values) -> None:
        """Take a record in."""
        self.records.append({"id": f"{self.number:06d}-{name}", **values, "split": self.split})


def compose_block(config: BuildConfig, number: int, materials: Materials) -> Block:
    """Block `number` of what the configuration asks for."""
    rng = np.random.default_rng([config.seed, number])
    composer = Composer(materials.bank, rng, config.chances, config.portraits, config.scale)
    h, w = config.aspects[rng.integers(len(config.aspects))]
    size = (round(config.size * h / max(h, w)), round(config.size * w / max(h, w)))
    block = Block(number, "test" if config.split == "test" else "train", problems=composer.problems)
    kind = _portraits if config.portraits else _stacks if config.layers > 2 else _triplets
    kind(block, config, composer, materials, size)
    return block


def _triplets(block: Block, config: BuildConfig, composer: Composer, materials: Materials, size: Size) -> None:
    """Every object on every background."""
    scenes = [_scene(block, config, composer, materials, size) for _ in range(config.grid)]
    layers = [composer.foreground(size, scene=scene) for scene, _ in scenes]
    fronts = [block.keep("foreground", f"{i}", layer.pixels) for i, layer in enumerate(layers)]
    backs = [block.keep("background", f"{j}", scene) for j, (scene, _) in enumerate(scenes)]
    for i, layer in enumerate(layers):
        for j, (_, words) in enumerate(scenes):
            # What is stored has 8 bits, so the composite is made of that.
            shown = block.keep("composite", f"{i}{j}", composite(block.pictures[fronts[i]], block.pictures[backs[j]]))
            captions = {"foreground": layer.name, "background": words, "composite": f"{layer.name} on {words}"}
            block.record(
                f"{i}{j}",
                foreground=fronts[i],
                background=backs[j],
                composite=shown,
                captions=captions,
                tags=layer.tags,
            )


def _portraits(block: Block, config: BuildConfig, composer: Composer, materials: Materials, size: Size) -> None:
    """Objects alone, some of them often."""
    familiar = [index for index, name in enumerate(composer.bank.names) if name in config.familiar]
    for k in range(config.grid**2):
        often = familiar and composer.rng.random() < config.familiar_share
        layer = composer.foreground(size, int(composer.rng.choice(familiar)) if often else None)
        front = block.keep("foreground", f"{k:02d}", layer.pixels)
        block.record(f"{k:02d}", foreground=front, captions={"foreground": layer.name}, tags=layer.tags)


def _stacks(block: Block, config: BuildConfig, composer: Composer, materials: Materials, size: Size) -> None:
    """Several objects, one over the other, on a background."""
    for k in range(config.grid**2):
        scene, words = _scene(block, config, composer, materials, size)
        fronts: list[Layer] = [composer.foreground(size, scene=scene) for _ in range(config.layers - 1)]
        paths = [block.keep("background", f"{k:02d}", scene)]
        paths += [block.keep("foreground", f"{k:02d}-{n}", layer.pixels) for n, layer in enumerate(fronts)]
        shown = reduce(lambda below, path: composite(block.pictures[path], below), paths[1:], block.pictures[paths[0]])
        names = [layer.name for layer in fronts]
        captions = {"layers": [words, *names], "composite": f"{', '.join(names)} on {words}"}
        block.record(f"{k:02d}", layers=paths, composite=block.keep("composite", f"{k:02d}", shown), captions=captions)


def _scene(block: Block, config: BuildConfig, composer: Composer, materials: Materials, size: Size):
    """A background and what it shows."""
    return draw_background(materials.photos, size, composer.rng, config.textures, block.problems)


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Rounded to what an 8-bit file keeps, as float32; hidden colour stays black."""
    return (np.round(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)
