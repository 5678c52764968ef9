"""Build a data set of triplets from objects and backgrounds: deterministic by seed, resumable, parallel.

Work is cut into blocks of `grid` objects and `grid` backgrounds that make `grid` squared composites: every picture then
serves several triplets, and training encodes it once. A block is a pure function of the seed and its number, and its
records are written last, so a block either counts or is made again.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import from_dict, require, to_dict
from ..errors import OmniAlphaError
from ..files.run_folder import refuse_difference, refuse_strange
from ..files.writing import DiskError, lines_of, sweep, write_json, write_over
from ..json_files import read_json
from .blocks import compose_block
from .compose import CHANCES
from .materials import Materials, load_materials, sources_of
from .parallel import spread
from .records import json_lines

FORMAT = {"format": "alphalayers", "version": 1}
FOLDERS = ("foreground", "background", "composite")
PARTS = "parts"
_ANEW = "Remove the folder, or give another --out."


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


def build(config: BuildConfig, out: Path | str, *, workers: int = 1, packages: str | None = None) -> Iterator[int]:
    """Make the data set, or what is missing of it; yields the number of finished blocks, finally all of them.

    Objects and photographs that cannot be read are left out, and `problems.jsonl` names them.

    Args:
        config: what to build.
        out: the data set's folder; new, or one that the same configuration began.
        workers: processes.
        packages: the `node_modules` folder, for "fluent-emoji".

    Raises:
        OmniAlphaError: the folder holds another data set, there are no materials or too many broken ones, or the disk
            is full.
    """
    out = Path(out)
    materials = _materials(config, packages)  # fails before anything is written
    _check_familiar(config, materials)
    _claim(out, config)
    if (out / "triplets.jsonl").is_file():
        shutil.rmtree(out / PARTS, ignore_errors=True)
        yield config.blocks
        return
    missing = [block for block in range(config.blocks) if not _part(out, block).is_file()]
    done = config.blocks - len(missing)
    yield done
    try:
        for folder in (PARTS, *(FOLDERS[:1] if config.portraits else FOLDERS)):
            (out / folder).mkdir(exist_ok=True)
            sweep(out / folder)
        for _ in spread(_build_block, [(config, out, block, packages) for block in missing], workers):
            done += 1
            yield done
        _finish(config, out)
    except (OSError, DiskError) as error:
        raise DiskError(
            f"Could not write to {out}: {error} Make room and run the same command again: it goes on after the {done} "
            f"of {config.blocks} blocks that are complete."
        ) from error


def _build_block(job: tuple[BuildConfig, Path, int, str | None]) -> None:
    config, out, block, packages = job
    made = compose_block(config, block, _materials(config, packages))
    for path, pixels in made.pictures.items():
        content = io.BytesIO()
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(content, "PNG", compress_level=3)
        write_over(out / path, content.getvalue())
    rows = [*made.records, *({"problem": problem} for problem in sorted(made.problems))]
    write_over(_part(out, block), lines_of(rows))


def _finish(config: BuildConfig, out: Path) -> None:
    """Join the parts; from `triplets.jsonl` on the data set is complete."""
    records, problems = [], set()
    for block in range(config.blocks):
        for number, row in json_lines(_part(out, block)):
            if not isinstance(row, dict):
                raise OmniAlphaError(f"{_part(out, block)}, line {number}: {row}. Remove the file and build again.")
            problems.add(row["problem"]) if "problem" in row else records.append(row)
    if problems:
        write_over(out / "problems.jsonl", lines_of({"problem": problem} for problem in sorted(problems)))
    write_over(out / "triplets.jsonl", lines_of(records))
    shutil.rmtree(out / PARTS)


def _materials(config: BuildConfig, packages: str | None) -> Materials:
    return load_materials(config.objects, config.backgrounds, config.split, packages, config.size)


def _check_familiar(config: BuildConfig, materials: Materials) -> None:
    unknown = [name for name in config.familiar if name not in materials.bank.names]
    if unknown:
        raise OmniAlphaError(
            f"familiar: no object of the split {config.split!r} is called {', '.join(map(repr, unknown[:5]))}."
        )


def _part(out: Path, block: int) -> Path:
    return out / PARTS / f"{block:06d}.jsonl"


def _claim(out: Path, config: BuildConfig) -> None:
    """Make the folder, or see that it is this configuration's."""
    note = out / "dataset.json"
    wanted = to_dict(config)
    if note.is_file():
        found = to_dict(read_build(out) or BuildConfig(""))
        refuse_difference(out, found, wanted, what="a data set built")
        return
    refuse_strange(out, "a data set")
    sources = sources_of(config.objects, *(() if config.portraits else (config.backgrounds, "textures")))
    write_json(note, {**FORMAT, "config": wanted, "sources": sources})


def read_build(folder: Path | str) -> BuildConfig | None:
    """The configuration that a data set folder was built with; None where it was not built by us."""
    note = Path(folder) / "dataset.json"
    config = read_json(note, advice=_ANEW).get("config") if note.is_file() else None
    return from_dict(BuildConfig, config, str(note)) if config else None
