"""Small objects, backgrounds and data sets that tests make on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"a red disc": (200, 60, 30), "a blue square": (40, 80, 210), "a green star": (60, 170, 70)}


def draw_object(name: str, side: int = 96) -> Image.Image:
    """A disc, a square or a star on nothing."""
    image = Image.new("RGBA", (side, side))
    pen, box = ImageDraw.Draw(image), (side // 8, side // 8, side - side // 8, side - side // 8)
    if "disc" in name:
        pen.ellipse(box, fill=(*COLOURS[name], 255))
    elif "square" in name:
        pen.rectangle(box, fill=(*COLOURS[name], 255))
    else:
        pen.regular_polygon((side / 2, side / 2, side / 2.5), 5, fill=(*COLOURS[name], 255))
    return image


def make_materials(folder: Path) -> tuple[Path, Path]:
    """Folders of three objects and two backgrounds."""
    objects, backgrounds = folder / "objects", folder / "backgrounds"
    objects.mkdir(parents=True)
    backgrounds.mkdir()
    for name in COLOURS:
        draw_object(name).save(objects / f"{name.replace(' ', '_')}.png")
    rng = np.random.default_rng(0)
    for name in ("sand", "sky"):
        noise = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        noise.resize((160, 120), Image.Resampling.BICUBIC).save(backgrounds / f"{name}.jpg")
    return objects, backgrounds


def make_triplets(folder: Path, count: int = 16, **changes) -> Path:
    """A small data set of triplets, built by the builder."""
    from omnialpha.data.build import build
    from omnialpha.data.config import BuildConfig

    objects, backgrounds = make_materials(folder / "materials")
    settings = {"split": "all", "size": 64, "grid": 2, "aspects": ((1, 1),)} | changes
    config = BuildConfig(objects=str(objects), backgrounds=str(backgrounds), count=count, **settings)
    for _ in build(config, folder / "triplets"):
        pass
    return folder / "triplets"


def edit_records(dataset: Path, change) -> None:
    """Rewrite `triplets.jsonl`: `change(records)` works on the list in place."""
    path = dataset / "triplets.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
