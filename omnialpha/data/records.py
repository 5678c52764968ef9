"""Reading data sets: triplets, stacks of layers, and supervised lists, from JSON lines. Nothing is skipped in silence.

A data set folder ("AlphaLayers", paper section 3.4) holds `dataset.json`, `triplets.jsonl` with one record a line, the
pictures those lines name, and after filtering `rejected.jsonl`. What a line is, its keys tell:

    triplet     {"id", "foreground", "background", "composite", "captions": {role: text}, "split", "tags"}
    stack       {"id", "layers": [back, ..., front], "composite", "captions": {"layers": [...], "composite": text}}
    supervised  {"id", "prompt", "input_images": [...], "output_images": [...]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OmniAlphaError

LAYER_ROLES = ("foreground", "background", "composite")


@dataclass(frozen=True)
class Triplet:
    """A foreground (RGBA), a background and their composite (RGB), each a path or None, with captions by role."""

    id: str
    pictures: dict[str, Path]
    captions: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    split: str = "train"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every picture the record needs."""
        return tuple(self.pictures.values())


@dataclass(frozen=True)
class StackRecord:
    """Layers back to front (the first opaque), their composite, and a caption for each."""

    id: str
    layers: tuple[Path, ...]
    composite: Path
    captions: tuple[str, ...] = ()
    caption: str = ""
    split: str = "train"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every picture the record needs."""
        return (*self.layers, self.composite)


@dataclass(frozen=True)
class Supervised:
    """Pictures in, pictures out (back to front), and the words in between."""

    id: str
    prompt: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    split: str = "train"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every picture the record needs."""
        return (*self.inputs, *self.outputs)


Record = Triplet | StackRecord | Supervised


@dataclass(frozen=True)
class Problem:
    """A record that cannot be used: where it stands, what it is called, and why."""

    line: int
    id: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a data set holds: usable records, and a `Problem` for each line that is not."""

    records: list[Record]
    problems: list[Problem]

    def of_split(self, split: str | None) -> list[Record]:
        """The records of "train" or "test"; all of them for None."""
        return [record for record in self.records if split in (None, record.split)]


def read_records(path: Path | str, images: Path | str | None = None, *, rejected: bool = False) -> Reading:
    """Read a data set folder or a JSONL file; whether its pictures exist is checked, their pixels are not read.

    Args:
        path: a folder with `triplets.jsonl`, or a JSONL file.
        images: folder that picture paths are relative to; by default the JSONL file's own.
        rejected: whether a folder's records that its `rejected.jsonl` names are wanted too.

    Raises:
        OmniAlphaError: there is no such file, or not one line of it can be used.
    """
    path = Path(path)
    lines = path / "triplets.jsonl" if path.is_dir() else path
    if not lines.is_file():
        raise OmniAlphaError(f"{lines} does not exist. Give a data set folder with triplets.jsonl, or a JSONL file.")
    root = Path(images) if images else lines.parent
    left_out = _rejected(lines.parent) if path.is_dir() and not rejected else set()
    records, problems, seen = [], [], set()
    known: dict[Path, bool] = {}  # pictures are shared: the disk is asked once for each
    for number, data in json_lines(lines):
        try:
            record = parse_record(data, root)
            if record.id in seen:
                raise ValueError(f"duplicate id: {record.id!r} stands on an earlier line already")
            for file in record.files:
                if file not in known:
                    known[file] = file.is_file()
            missing = [str(file) for file in record.files if not known[file]]
            if missing:
                raise ValueError(f"missing picture: {', '.join(missing)}")
        except ValueError as error:
            name = str(data.get("id", "")) if isinstance(data, dict) else ""
            problems.append(Problem(number, name, str(error)))
            continue
        seen.add(record.id)
        if record.id not in left_out:
            records.append(record)
    if not records:
        why = f" The first problem, on line {problems[0].line}: {problems[0].reason}." if problems else ""
        why += f" The filter rejected {len(left_out)}; {path / 'rejected.jsonl'} says why." if left_out else ""
        raise OmniAlphaError(f"{lines} holds no usable record.{why}")
    return Reading(records, problems)


def parse_record(data: object, root: Path) -> Record:
    """One line's JSON as a record; paths are joined to `root`. ValueError says what is wrong with it."""
    if isinstance(data, ValueError):
        raise data
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, found {type(data).__name__}")
    name = data.get("id")
    if not isinstance(name, (str, int)) or not str(name):
        raise ValueError('no "id"')
    common = {"id": str(name), "split": str(data.get("split", "train"))}
    if "output_images" in data:
        outputs = _paths(data, "output_images", root)
        if not outputs:
            raise ValueError('"output_images" is empty: there is nothing to learn')
        prompt = _text(data.get("prompt", ""), "prompt")
        return Supervised(prompt=prompt, inputs=_paths(data, "input_images", root), outputs=outputs, **common)
    captions = data.get("captions", {})
    if not isinstance(captions, dict):
        raise ValueError('"captions" has to be an object')
    if "layers" in data:
        layers = _paths(data, "layers", root)
        if len(layers) < 2:
            raise ValueError('"layers" needs two layers or more, back to front')
        texts = tuple(_text(text, "captions.layers") for text in _list(captions.get("layers", []), "captions.layers"))
        caption = _text(captions.get("composite", ""), "captions.composite")
        return StackRecord(
            layers=layers,
            composite=_path(data.get("composite"), "composite", root),
            captions=texts,
            caption=caption,
            **common,
        )
    pictures = {role: _path(data[role], role, root) for role in LAYER_ROLES if data.get(role)}
    if "foreground" not in pictures:
        raise ValueError('no "foreground", "layers" or "output_images"')
    texts = {role: _text(text, f"captions.{role}") for role, text in captions.items()}
    tags = tuple(_text(tag, "tags") for tag in _list(data.get("tags", []), "tags"))
    return Triplet(pictures=pictures, captions=texts, tags=tags, **common)


def json_lines(path: Path) -> Iterator[tuple[int, object]]:
    """(line number from 1, value) of every line that is not empty; a ValueError stands in for a broken one."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except json.JSONDecodeError as error:
                    yield number, ValueError(f"broken JSON: {error.msg} at column {error.colno}")
                except UnicodeDecodeError as error:
                    yield number, ValueError(f"broken text: byte {error.start} of the line is not UTF-8")
                except RecursionError:
                    yield number, ValueError("broken JSON: nested too deeply")


def _rejected(folder: Path) -> set[str]:
    """Ids that the filter rejected. Its lines about lines that cannot be read carry a number and name no record."""
    path = folder / "rejected.jsonl"
    rows = [data for _, data in json_lines(path) if isinstance(data, dict)] if path.is_file() else []
    return {str(row.get("id", "")) for row in rows if "line" not in row}


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{key}" has to be text, found {type(value).__name__}')
    return value


def _path(value: object, key: str, root: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f'"{key}" has to be the path of a picture')
    # The words of the path alone: links below the root are the owner's business, and asking the disk is slow.
    if os.path.isabs(value) or os.path.normpath(value).startswith(".."):
        raise ValueError(f'"{key}" leads out of the data set: {value}')
    return root / value


def _paths(data: dict, key: str, root: Path) -> tuple[Path, ...]:
    return tuple(_path(value, key, root) for value in _list(data.get(key, []), key))


def _list(value: object, key: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f'"{key}" has to be a list, found {type(value).__name__}')
    return value
