"""The configuration of `data build`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import require
from .compose import CHANCES


@dataclass
class BuildConfig:
    """What to build.

    Attributes:
        objects: a folder of RGBA pictures, or "fluent-emoji", or "glyphs".
        backgrounds: a folder of pictures, or "photographs", "odd-photographs" (in no other data set), or "textures".
        count: how many triplets (rounded up to whole blocks).
        seed: another seed, another data set.
        split: "train", "test", or "all": which objects and photographs to use.
        size: longer side of every picture, in pixels.
        aspects: (height, width) shapes to draw from.
        grid: objects and backgrounds of a block.
        textures: share of backgrounds that are drawn.
        chances: effect or placement -> how often; see `compose.CHANCES`.
        scale: range of an object's longer side as a share of the canvas' shorter one.
        layers: of each picture; above 2, stacks of that many layers (the background and several objects) are made.
        portraits: foregrounds alone, centred, for drawing from words; no background, no composite.
        familiar: names of objects that `familiar_share` of the portraits show.
    """

    objects: str
    backgrounds: str = "photographs"
    count: int = 1000
    seed: int = 0
    split: str = "train"
    size: int = 128
    aspects: tuple[tuple[int, int], ...] = ((1, 1), (1, 1), (1, 1), (3, 4), (4, 3))
    grid: int = 4
    textures: float = 0.4
    chances: dict[str, float] = field(default_factory=lambda: dict(CHANCES))
    scale: tuple[float, float] = (0.5, 0.97)
    layers: int = 2
    portraits: bool = False
    familiar: tuple[str, ...] = ()
    familiar_share: float = 0.75

    def __post_init__(self):
        checks = {
            "split": (self.split in ("train", "test", "all"), "train, test or all"),
            "size": (32 <= self.size <= 4096, "32 to 4096 pixels"),
            "grid": (1 <= self.grid <= 16, "1 to 16"),
            "count": (self.count >= 1, "1 or more"),
            "layers": (2 <= self.layers <= 16, "2 to 16"),
            "textures": (0 <= self.textures <= 1, "a share between 0 and 1"),
            "scale": (0 < self.scale[0] <= self.scale[1] <= 1, "two shares between 0 and 1, the smaller first"),
            "chances": (set(self.chances) <= set(CHANCES), f"effects among {', '.join(CHANCES)}"),
        }
        require(self, checks)

    @property
    def blocks(self) -> int:
        """How many blocks make `count` triplets."""
        return -(-self.count // self.grid**2)
