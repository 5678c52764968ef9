"""Look at a data set: what it holds in words, and its tasks as training will see them."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

import numpy as np

from ..files.opening import open_picture
from ..files.sheet import Sheet
from ..tasks import TASKS
from .examples import derive, tasks_of, words_of
from .records import StackRecord, Supervised, Triplet, read_records

KINDS = {Triplet: "triplets", StackRecord: "stacks", Supervised: "supervised examples"}
SAMPLE = 500  # records whose sizes are looked at


def describe(path: Path | str, images: Path | str | None = None) -> str:
    """A few lines: how many records of what kind, their tags, what tasks they can serve, and what is wrong."""
    reading, whole = read_records(path, images), len(read_records(path, images, rejected=True).records)
    kinds = Counter(KINDS[type(record)] for record in reading.records)
    splits = Counter(record.split for record in reading.records)
    tags = Counter(tag for record in reading.records if isinstance(record, Triplet) for tag in record.tags)
    tasks = Counter(task for record in reading.records for task in tasks_of(record))
    words = Counter(word for record in reading.records if (word := words_of(record)))
    step = max(1, len(reading.records) // SAMPLE)
    sizes = Counter(_size_in_words(record) for record in reading.records[::step][:SAMPLE])
    lines = [
        _row("records", kinds),
        _row("splits", splits),
        _row("sizes", sizes),
        _row("tags", tags),
        f"tasks     {len(tasks)}: {', '.join(tasks)}",
        f"captions  {len(words)} different, such as {'; '.join(word for word, _ in words.most_common(5))}",
    ]
    if whole > len(reading.records):
        lines.append(f"rejected  {whole - len(reading.records)}, see rejected.jsonl")
    lines += [f"line {problem.line}: {problem.reason}" for problem in reading.problems[:10]]
    if len(reading.problems) > 10:
        lines.append(f"and {len(reading.problems) - 10} more lines that cannot be used")
    return "\n".join(lines)


def draw_tasks(path: Path | str, out: Path | str, images: Path | str | None = None, seed: int = 0) -> None:
    """A contact sheet with one example of every task the data set can serve: inputs, then the true answer."""
    records = read_records(path, images).records
    rng = np.random.default_rng(seed)
    by_task: dict[str, list] = {}
    for record in records:
        for task in tasks_of(record):
            by_task.setdefault(task, []).append(record)
    tasks = [*(task for task in TASKS if task in by_task), *(task for task in by_task if task not in TASKS)]
    examples = [derive(by_task[task][rng.integers(len(by_task[task]))], task, rng) for task in tasks]
    given, asked = (max(2, *map(len, side)) for side in zip(*((one.inputs, one.targets) for one in examples)))
    columns = ["input", "guide", *["input"] * (given - 2), *["answer"] * asked]
    sheet = Sheet(f"{Path(path).name}: what each task gives and asks for", columns)
    for task, example in zip(tasks, examples):
        words = textwrap.wrap(example.text or "(no text)", 36, max_lines=4, placeholder=" …")
        sheet.add(task, words, [*example.inputs, *[None] * (given - len(example.inputs)), *example.targets])
    sheet.save(out)


def _size_in_words(record: Triplet | StackRecord | Supervised) -> str:
    try:
        with open_picture(record.files[-1]) as image:
            return f"of {image.width}x{image.height}"
    except OSError:
        return "that cannot be read (`data filter` names them)"


def _row(name: str, counts: Counter) -> str:
    return f"{name:10}" + (", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none")
