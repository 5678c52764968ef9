"""Words for the pictures of a folder: from a table, from a note beside the picture, or from its name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import OmniAlphaError
from .records import json_lines

TABLES = ("captions.jsonl", "captions.csv", "metadata.jsonl", "metadata.csv")
FILE_KEYS, TEXT_KEYS = ("file", "file_name", "image"), ("caption", "text")


class Captions:
    """Captions of a folder's pictures.

    Looked for in this order: a table in the folder (`TABLES`; each row has the picture's path relative to the folder as
    "file" or "file_name", and its "caption" or "text"), the first line of a `.txt` file beside the picture, and the
    picture's own name with `-` and `_` read as blanks.

    Args:
        root: the folder.

    Raises:
        OmniAlphaError: a row of a table cannot be read, or lacks one of the two.
    """

    def __init__(self, root: Path):
        self.root = root
        self.table = dict(row for name in TABLES if (root / name).is_file() for row in _rows(root / name))

    def of(self, path: Path) -> str:
        """The caption of a picture in the folder. Raises OmniAlphaError where its note is not UTF-8 text."""
        words = self.table.get(path.relative_to(self.root).as_posix(), "").strip()
        note = path.with_suffix(".txt")
        if not words and note.is_file():
            try:
                words = next(iter(note.read_text(encoding="utf-8-sig").strip().splitlines()), "").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise OmniAlphaError(f"The caption {note} cannot be read as UTF-8 text: {error}") from error
        return words or " ".join(path.stem.replace("-", " ").replace("_", " ").split())


def _rows(table: Path) -> Iterator[tuple[str, str]]:
    """(path, caption) of every row."""
    for number, row in _csv_rows(table) if table.suffix == ".csv" else json_lines(table):
        values = row if isinstance(row, dict) else {}
        file, words = (next((values[key] for key in keys if values.get(key)), None) for keys in (FILE_KEYS, TEXT_KEYS))
        if not isinstance(file, str) or not isinstance(words, str):
            why = row if isinstance(row, ValueError) else f"found {row!r}"
            raise OmniAlphaError(f'{table}, line {number}: expected a "file" and a "caption"; {why}.')
        yield Path(file).as_posix(), words


def _csv_rows(table: Path) -> Iterator[tuple[int, dict]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OmniAlphaError(f"{table} cannot be read as CSV: {error}") from error
