"""What can be measured of a record, independent of any limit: kept beside the data, so nothing is read twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from ..files.opening import open_picture
from ..files.writing import lines_of, write_over
from .compose import composite, over
from .examples import read_rgba
from .parallel import spread
from .records import Record, StackRecord, Supervised, json_lines

STORE = "measures.jsonl"
CHUNK = 64  # records that a worker measures at a time; neighbours share pictures


@dataclass(frozen=True)
class Measures:
    """Numbers about one record; those that do not apply are None.

    Attributes:
        id: the record's.
        stamp: changes when one of its files does.
        fault: why nothing could be measured, "" for no reason.
        visible, solid: share of the canvas with foreground alpha above .05, above .95.
        soft: share of the visible pixels with alpha below .95.
        error: mean absolute difference of foreground over background from the composite, [0, 1].
        hash: 128 bits in hex: the perceptual hashes of the composite and of the foreground's alpha.
        colour: mean colour of the composite, [0, 1].
    """

    id: str
    stamp: str
    fault: str = ""
    visible: float | None = None
    solid: float | None = None
    soft: float | None = None
    error: float | None = None
    hash: str | None = None
    colour: tuple[float, ...] | None = None


def measure_all(
    folder: Path, records: Sequence[Record], workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Measures]:
    """Measures of every record, in order; only what is new or has changed is read.

    Args:
        folder: where `measures.jsonl` is kept.
        records: the records.
        workers: processes.
        progress: called with how many are done, and of how many.

    Raises:
        OSError: the measures cannot be kept.
    """
    known = _read_store(folder / STORE)
    stamps = {record.id: stamp_of(record) for record in records}
    missing = [record for record in records if getattr(known.get(record.id), "stamp", "") != stamps[record.id]]
    done = len(records) - len(missing)
    chunks = [[(record, stamps[record.id]) for record in missing[k : k + CHUNK]] for k in range(0, len(missing), CHUNK)]
    with (folder / STORE).open("ab") as file:  # a filter that is stopped has not measured in vain
        for found in spread(_measure_chunk, chunks, workers):
            known |= {measures.id: measures for measures in found}
            file.write(lines_of(map(asdict, found)))
            file.flush()
            done += len(found)
            if progress:
                progress(done, len(records))
    wanted = [known[record.id] for record in records]
    if missing:
        write_over(folder / STORE, lines_of(map(asdict, wanted)))
    return wanted


def stamp_of(record: Record) -> str:
    """A short hash of the names, sizes and times of a record's files."""
    stats = [(path, path.stat()) for path in record.files]
    text = "|".join(f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}" for path, stat in stats)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(record: Record, stamp: str = "") -> Measures:
    """Read a record's pictures and measure them. A supervised record's only have to be readable."""
    try:
        pictures = [_read(path) for path in record.files]
    except OmniAlphaError as error:
        return Measures(record.id, stamp, f"unreadable picture: {error}")
    if isinstance(record, Supervised):
        return Measures(record.id, stamp)
    sizes = [f"{path.name} {shape.shape[1]}x{shape.shape[0]}" for path, shape in zip(record.files, pictures)]
    if len({picture.shape for picture in pictures}) > 1:
        return Measures(record.id, stamp, f"sizes differ: {', '.join(sizes)}")
    stack = isinstance(record, StackRecord)
    for path in record.layers[1:] if stack else [record.pictures["foreground"]]:
        with open_picture(path) as image:
            if not image.has_transparency_data:
                return Measures(record.id, stamp, f"no alpha channel: {path.name} is a plain picture")
    if stack:
        front, back, shown = reduce(lambda low, top: over(top, low), pictures[1:-1]), pictures[0], pictures[-1]
    else:
        by_role = dict(zip(record.pictures, pictures))
        front, back, shown = by_role["foreground"], by_role.get("background"), by_role.get("composite")
    alpha, error = front[..., 3], None
    if back is not None and shown is not None:
        error = float(np.abs(composite(front, back[..., :3]) - shown[..., :3]).mean())
    visible, solid = float((alpha > 0.05).mean()), float((alpha > 0.95).mean())
    seen = shown[..., :3] if shown is not None else composite(front, np.ones_like(front[..., :3]))
    colour = tuple(round(float(value), 4) for value in seen.mean((0, 1)))
    numbers = (visible, solid, 1 - solid / max(visible, 1e-9), error)
    prints = (_hash(seen) + _hash(np.repeat(alpha[..., None], 3, -1)), colour)
    return Measures(record.id, stamp, "", *numbers, *prints)


@lru_cache(16)
def _read(path: Path) -> np.ndarray:
    return read_rgba(path)


def _hash(rgb: np.ndarray) -> str:
    """64 bits as 16 hex digits."""
    try:
        from imagehash import phash
    except ImportError as error:
        raise OmniAlphaError("The filter needs ImageHash: pip install -r requirements-train.txt") from error
    return str(phash(Image.fromarray((rgb * 255).round().astype(np.uint8))))


def _measure_chunk(chunk: list[tuple[Record, str]]) -> list[Measures]:
    return [measure(record, stamp) for record, stamp in chunk]


def _read_store(path: Path) -> dict[str, Measures]:
    """What is known already; lines that were cut off, or that another version wrote, are measured again."""
    names, known = {field.name for field in fields(Measures)}, {}
    for _, row in json_lines(path) if path.is_file() else ():
        if isinstance(row, dict) and set(row) == names:
            known[row["id"]] = Measures(**row)
    return known


def near_duplicates(found: Sequence[Measures], bits: int, colour: float = 4 / 255) -> Iterator[tuple[int, int]]:
    """(place, place of an earlier one that shows the same): at most `bits` bits of the hashes differ, and `colour`.

    The composites' hashes of two such records agree in one of `bits` + 1 pieces, so only those that do are compared.
    """
    cuts = [64 * k // (bits + 1) for k in range(bits + 2)]
    pieces = [(low, (1 << (high - low)) - 1) for low, high in pairwise(cuts)]
    buckets: dict[tuple[int, int], list[int]] = {}

    def same(one: Measures, other: Measures) -> bool:
        apart = (int(one.hash or "", 16) ^ int(other.hash or "", 16)).bit_count()
        return apart <= bits and max(abs(a - b) for a, b in zip(one.colour or (), other.colour or ())) <= colour

    for place, measures in enumerate(found):
        shown = int((measures.hash or "")[:16], 16)
        keys = [(low, shown >> low & mask) for low, mask in pieces]
        near = sorted({old for key in keys for old in buckets.get(key, ())})
        twin = next((old for old in near if same(found[old], measures)), None)
        if twin is None:
            for key in keys:
                buckets.setdefault(key, []).append(place)
        else:
            yield place, twin
