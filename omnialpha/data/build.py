"""Build a data set of triplets from objects and backgrounds: deterministic by seed, resumable, parallel.

Work is cut into blocks of `grid` objects and `grid` backgrounds that make `grid` squared composites: every picture then
serves several triplets, and training encodes it once. A block is a pure function of the seed and its number, and its
records are written last, so a block either counts or is made again.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..config import from_dict, to_dict
from ..errors import OmniAlphaError
from ..files.run_folder import refuse_difference, refuse_strange
from ..files.writing import DiskError, lines_of, sweep, write_json, write_over
from ..json_files import read_json
from .config import BuildConfig
from .materials import Materials, load_materials, sources_of
from .parallel import spread
from .records import json_lines
from .scenes import compose_block

FORMAT = {"format": "alphalayers", "version": 1}
FOLDERS = ("foreground", "background", "composite")
PARTS = "parts"
_ANEW = "Remove the folder, or give another --out."


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
