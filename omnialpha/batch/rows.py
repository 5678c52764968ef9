"""Rows: what each job is to change, as it was written, from patterns or from a table."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from .addresses import is_address, locate, matches
from .naming import fill
from .workflow import PICTURES


@dataclass(frozen=True)
class Row:
    """A job before its files are read: values by the input's name as the user wrote it."""

    name: str
    values: Mapping[str, str]
    folder: str = ""
    base: Path = Path()  # what relative paths are relative to
    where: str = ""  # for messages: "jobs.csv, line 3"


def from_patterns(values: Mapping[str, str], takes_file: Callable[[str], bool] = lambda name: True) -> Iterator[Row]:
    """One job per file that matches the one value with wildcards; the others may use what is known of that file.

    Args:
        values: input's name -> value. One may be a pattern (`in/*.png`, `in/**/*.png`) or a folder. In the others
            `{stem}`, `{name}`, `{parent}`, `{folder}` and `{number}` stand for that file. A value for `text` that is a
            CSV file is a table of texts by file.
        takes_file: whether an input names a file; in others "*", "?" and "[" are letters like any.

    Raises:
        OmniAlphaError: several patterns, no file that matches, a field or a text that is not there.
    """
    files = [name for name, value in values.items() if takes_file(name) and not value.startswith("@")]
    patterns = [name for name in files if _is_pattern(values[name])]
    if len(patterns) > 1:
        raise OmniAlphaError(
            f"Only one input may have wildcards, and {', '.join(patterns)} have. Let the others follow its file: "
            f"'masks/{{stem}}.png'."
        )
    texts = {name: _texts(Path(value)) for name, value in values.items() if _is_table(name, value)}
    lead = next(iter(patterns or files), None)
    if lead is None and texts:
        raise OmniAlphaError("A table of texts needs pictures beside it. Without, use --manifest.")
    if lead is None:
        yield Row("job", {name: fill(value, {"number": 1}) for name, value in values.items()})
        return
    for number, (path, folder) in enumerate(_matches(values[lead]) if patterns else [(locate(values[lead]), "")], 1):
        fields = {
            "stem": path.stem,
            "name": path.name,
            "parent": path.parent.as_posix(),
            "folder": folder,
            "number": number,
        }
        row = {lead: str(path)}
        for name, value in values.items():
            if name in texts:
                row[name] = _text_for(texts[name], path, folder, value)
            elif name != lead:
                row[name] = fill(value, fields)
        yield Row(path.stem, row, folder)


def _is_pattern(value: str) -> bool:
    if is_address(value):
        return glob.has_magic(value) or locate(value).is_dir()
    path = Path(os.path.expanduser(value))
    return path.is_dir() or (glob.has_magic(value) and not path.is_file())


def from_manifest(path: str | Path) -> Iterator[Row]:
    """The jobs of a table: CSV with a header, or JSONL with an object per line.

    A column is an input's name; `job` names the job. Empty cells leave the workflow's own value. Paths are relative to
    the table's folder.

    Raises:
        OmniAlphaError: it cannot be read, or has no jobs.
    """
    path = Path(path)
    count = 0
    for line, row in _table(path):
        count += 1
        values = {name: value for name, value in row.items() if name != "job" and value not in ("", None)}
        files = [value for value in map(str, values.values()) if Path(value).suffix.lower() in PICTURES]
        name = str(row.get("job") or (Path(files[0]).stem if files else f"job-{count:05}"))
        yield Row(name, values, "", path.parent, f"{path}, line {line}")
    if not count:
        raise OmniAlphaError(f"{path} has no jobs: expected a header with names of inputs and one line per job.")


def _matches(pattern: str) -> list[tuple[Path, str]]:
    """(file, its folder below the fixed part of the pattern), sorted."""
    pattern = os.path.expanduser(pattern)
    root = Path(pattern)
    if is_address(pattern):
        found, root = matches(pattern, PICTURES)
    elif root.is_dir():
        found = [path for path in root.iterdir() if path.suffix.lower() in PICTURES]
    else:
        parts = Path(pattern).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:fixed])
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]
    found = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if not found:
        raise OmniAlphaError(f"No file matches '{pattern}'. Mind the quotes, which keep the shell from expanding it.")
    folder = lambda path: path.parent.relative_to(root).as_posix()  # noqa: E731
    return [(path, "" if folder(path) == "." else folder(path)) for path in found]


def _is_table(name: str, value: str) -> bool:
    return name == "text" and value.lower().endswith(".csv") and Path(value).is_file()


def _texts(path: Path) -> dict[str, str]:
    """File or stem -> text, of a CSV with a column for the file and one for the text."""
    rows = list(_table(path))
    columns = list(rows[0][1]) if rows else []
    key = next((name for name in ("image", "file", "file_name", "stem") if name in columns), None)
    text = next((name for name in ("text", "caption", "prompt") if name in columns), None)
    if not (key and text):
        raise OmniAlphaError(f"{path} has the columns {columns}; expected 'image' (or 'file', 'stem') and 'text'.")
    return {row[key]: row[text] for _, row in rows}


def _text_for(texts: Mapping[str, str], path: Path, folder: str, table: str) -> str:
    for name in (str(path), f"{folder}/{path.name}" if folder else path.name, path.name, path.stem):
        if name in texts:
            return texts[name]
    raise OmniAlphaError(f"{table} has no text for {path.name}.")


def _table(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line, row) of a CSV or JSONL file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OmniAlphaError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return [(i, _object(line, path, i)) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    reader = csv.DictReader(text.splitlines(keepends=True), skipinitialspace=True, strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():  # what DictReader calls cells too many, and too few
                cells = len(reader.fieldnames or ())
                raise OmniAlphaError(
                    f"{path}, line {reader.line_num}: expected {cells} cells; put cells with commas in quotes."
                )
            rows.append((reader.line_num, {name.strip(): value for name, value in row.items()}))
    except csv.Error as error:
        raise OmniAlphaError(f"{path}, line {reader.line_num}: {error}.") from error
    return rows


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise OmniAlphaError(f"{path}, line {number}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise OmniAlphaError(f"{path}, line {number}: expected an object, got {type(row).__name__}.")
    return row
