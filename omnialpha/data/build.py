"""Build a data set of triplets from objects and backgrounds: deterministic by seed, resumable, parallel.

Work is cut into blocks of `grid` objects and `grid` backgrounds that make `grid` squared composites: every picture then
serves several triplets, and training encodes it once. A block is a pure function of the seed and its number, and its
records are written last, so a block either counts or is made again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import from_dict, to_dict
from ..errors import OmniAlphaError
from .backgrounds import PHOTOS, draw_background, folder_photos, load_photos
from .compose import CHANCES, Composer, ObjectBank, composite
from .objects import IMAGES, NAMES, find_objects, folder_objects, glyph_objects

FORMAT = {"format": "alphalayers", "version": 1}
# What can stand where a folder of objects or backgrounds is expected -> what it is, and its licence.
SOURCES = {
    "fluent-emoji": (f"Microsoft Fluent Emoji 3D, npm packages {IMAGES} and {NAMES}", "MIT"),
    "glyphs": ("letters and signs of DejaVu Sans Bold, as matplotlib ships it", "Bitstream Vera (free)"),
    "photographs": (f"photographs in scikit-image: {', '.join(PHOTOS)}", "CC0 or public domain"),
    "textures": ("drawn by omnialpha/data/backgrounds.py", "this repository's"),
}


@dataclass
class BuildConfig:
    """What to build. `docs/data.md` explains every key.

    Attributes:
        objects: a folder of RGBA pictures, or "fluent-emoji", or "glyphs".
        backgrounds: a folder of pictures, or "photographs", or "textures".
        count: how many triplets (rounded up to whole blocks).
        seed: another seed, another data set.
        split: "train", "test", or "all": which objects and photographs to use.
        size: longer side of every picture, in pixels.
        aspects: (height, width) shapes to draw from.
        grid: objects and backgrounds of a block.
        textures: share of backgrounds that are drawn.
        chances: effect or placement -> how often; see `compose.CHANCES`.
        scale: range of an object's longer side as a share of the canvas' shorter one.
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
    portraits: bool = False
    familiar: tuple[str, ...] = ()
    familiar_share: float = 0.75

    def __post_init__(self):
        checks = {
            "split": (self.split in ("train", "test", "all"), "train, test or all"),
            "size": (32 <= self.size <= 4096, "32 to 4096 pixels"),
            "grid": (1 <= self.grid <= 16, "1 to 16"),
            "count": (self.count >= 1, "1 or more"),
            "scale": (0 < self.scale[0] <= self.scale[1] <= 1, "two shares between 0 and 1, the smaller first"),
            "chances": (set(self.chances) <= set(CHANCES), f"effects among {', '.join(CHANCES)}"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise OmniAlphaError(f"{name}: expected {expected}, found {getattr(self, name)!r}.")

    @property
    def blocks(self) -> int:
        """How many blocks make `count` triplets."""
        return -(-self.count // self.grid**2)


@dataclass(frozen=True)
class Materials:
    """Objects and background pictures in memory."""

    bank: ObjectBank
    photos: list


@cache
def load_materials(objects: str, backgrounds: str, split: str, packages: str | None) -> Materials:
    """Find the objects and backgrounds of a split. Raises OmniAlphaError where there are none."""
    finders = {"fluent-emoji": lambda: find_objects(packages or "node_modules"), "glyphs": glyph_objects}
    entries = finders.get(objects, lambda: folder_objects(objects))()
    chosen = [entry for entry in entries if split in ("all", entry.split)]
    if not chosen:
        raise OmniAlphaError(f"None of the {len(entries)} objects of {objects} is in the split {split!r}; try `all`.")
    side = "test" if split == "test" else "train"
    drawn = {"photographs": lambda: load_photos(side), "textures": list}
    return Materials(ObjectBank(chosen), drawn.get(backgrounds, lambda: folder_photos(backgrounds, side))())


def build(config: BuildConfig, out: Path | str, *, workers: int = 1, packages: str | None = None) -> Iterator[int]:
    """Make the data set, or what is missing of it; yields the number of finished blocks, finally all of them.

    Args:
        config: what to build.
        out: the data set's folder; new, or one that the same configuration began.
        workers: processes.
        packages: the `node_modules` folder, for "fluent-emoji".

    Raises:
        OmniAlphaError: the folder holds another data set, materials are missing or broken, or the disk is full.
    """
    out = Path(out)
    load_materials(config.objects, config.backgrounds, config.split, packages)  # fail before anything is written
    _claim(out, config)
    missing = [block for block in range(config.blocks) if not _part(out, block).is_file()]
    done = config.blocks - len(missing)
    yield done
    jobs = [(config, out, block, packages) for block in missing]
    try:
        if workers > 1 and len(jobs) > 1:
            # spawn: forking a process in which torch runs threads can hang
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for _ in pool.imap_unordered(_build_block, jobs, chunksize=4):
                    done += 1
                    yield done
        else:
            for job in jobs:
                _build_block(job)
                done += 1
                yield done
    except OSError as error:
        raise OmniAlphaError(
            f"Could not write to {out}: {error.strerror or error}. Make room and run the same command again: it goes "
            f"on after the {done} of {config.blocks} blocks that are complete."
        ) from error
    lines = [_part(out, block).read_text(encoding="utf-8") for block in range(config.blocks)]
    write_atomically(out / "triplets.jsonl", "".join(lines).encode())


def compose_block(config: BuildConfig, block: int, materials: Materials) -> tuple[dict[str, np.ndarray], list[dict]]:
    """One block: (pictures by relative path, float32 [h, w, 3 or 4] in [0, 1]; records that name them)."""
    rng = np.random.default_rng([config.seed, block])
    composer = Composer(materials.bank, rng, config.chances, config.portraits, config.scale)
    h, w = config.aspects[rng.integers(len(config.aspects))]
    size = (round(config.size * h / max(h, w)), round(config.size * w / max(h, w)))
    pictures: dict[str, np.ndarray] = {}
    if config.portraits:
        return pictures, _portraits(config, block, composer, size, pictures)
    scenes = [draw_background(materials.photos, size, rng, config.textures) for _ in range(config.grid)]
    layers = [composer.foreground(size, scene=scenes[index][0]) for index in range(config.grid)]
    names = [f"{block:06d}-{index}" for index in range(config.grid)]
    # What is stored has 8 bits, so the composite is made of that.
    scenes = [(to_8_bits(scene), caption) for scene, caption in scenes]
    for name, layer, (scene, _) in zip(names, layers, scenes):
        layer.pixels = to_8_bits(layer.pixels)
        pictures[f"foreground/{name}.png"], pictures[f"background/{name}.png"] = layer.pixels, scene
    records = []
    for i, layer in enumerate(layers):
        for j, (scene, words) in enumerate(scenes):
            pictures[f"composite/{names[i]}{j}.png"] = composite(layer.pixels, scene)
            captions = {"foreground": layer.name, "background": words, "composite": f"{layer.name} on {words}"}
            records.append({
                "id": f"{names[i]}{j}", "foreground": f"foreground/{names[i]}.png",
                "background": f"background/{names[j]}.png", "composite": f"composite/{names[i]}{j}.png",
                "captions": captions, "split": "test" if config.split == "test" else "train", "tags": layer.tags,
            })  # fmt: skip
    return pictures, records


def _portraits(config: BuildConfig, block: int, composer: Composer, size, pictures: dict) -> list[dict]:
    """Records of foregrounds alone; fills `pictures`."""
    names, rng = composer.bank.names, composer.rng
    familiar = [index for index, name in enumerate(names) if name in config.familiar]
    records = []
    for k in range(config.grid**2):
        often = familiar and rng.random() < config.familiar_share
        layer = composer.foreground(size, int(rng.choice(familiar)) if often else None)
        path = f"foreground/{block:06d}-{k:02d}.png"
        pictures[path] = layer.pixels
        records.append({"id": f"{block:06d}-{k:02d}", "foreground": path, "captions": {"foreground": layer.name},
                        "split": "test" if config.split == "test" else "train", "tags": layer.tags})  # fmt: skip
    return records


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Rounded to what an 8-bit file keeps, as float32; hidden colour stays black."""
    return (np.round(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)


def write_atomically(path: Path, content: bytes) -> None:
    """A file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _build_block(job: tuple[BuildConfig, Path, int, str | None]) -> None:
    config, out, block, packages = job
    materials = load_materials(config.objects, config.backgrounds, config.split, packages)
    pictures, records = compose_block(config, block, materials)
    for path, pixels in pictures.items():
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(out / path, compress_level=3)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomically(_part(out, block), lines.encode())


def _part(out: Path, block: int) -> Path:
    return out / "parts" / f"{block:06d}.jsonl"


def _claim(out: Path, config: BuildConfig) -> None:
    """Make the folders, or see that they are this configuration's."""
    note = out / "dataset.json"
    wanted = to_dict(config)
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8")).get("config", {})
        different = [key for key in wanted if found.get(key) != wanted[key]]
        if different:
            key = different[0]
            raise OmniAlphaError(
                f"{out} holds a data set built with {key} = {found.get(key)!r}, not {wanted[key]!r}. Give the same "
                f"configuration to go on with it, or another --out."
            )
        return
    if out.exists() and any(out.iterdir()):
        raise OmniAlphaError(f"{out} is not empty and holds no data set. Give a new folder.")
    try:
        for folder in ("parts", "foreground", *(() if config.portraits else ("background", "composite"))):
            (out / folder).mkdir(parents=True, exist_ok=True)
        used = [config.objects] if config.portraits else [config.objects, config.backgrounds, "textures"]
        sources = [
            {"source": source, "what": SOURCES.get(source, ("a folder", ""))[0],
             "licence": SOURCES.get(source, ("", "not recorded: the folder's owner knows"))[1]}
            for source in dict.fromkeys(used)
        ]  # fmt: skip
        content = json.dumps({**FORMAT, "config": wanted, "sources": sources}, indent=2, ensure_ascii=False)
        write_atomically(note, content.encode())
    except OSError as error:
        raise OmniAlphaError(f"{out} cannot be made: {error.strerror or error}.") from error


def read_build(folder: Path | str) -> BuildConfig | None:
    """The configuration that a data set folder was built with; None where it was not built by us."""
    note = Path(folder) / "dataset.json"
    if not note.is_file():
        return None
    config = json.loads(note.read_text(encoding="utf-8")).get("config")
    return from_dict(BuildConfig, config, str(note)) if config else None
