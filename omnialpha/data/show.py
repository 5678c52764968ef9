"""Look at a data set: what it holds in words, and its tasks as training will see them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ..sheet import Sheet
from ..tasks import TASKS
from .examples import derive, tasks_of
from .records import Stack, Supervised, Triplet, read_records

KINDS = {Triplet: "triplets", Stack: "stacks", Supervised: "supervised examples"}


def describe(path: Path | str, images: Path | str | None = None) -> str:
    """A few lines: how many records of what kind, their tags, what tasks they can serve, and what is wrong."""
    reading = read_records(path, images)
    kinds = Counter(KINDS[type(record)] for record in reading.records)
    splits = Counter(record.split for record in reading.records)
    tags = Counter(tag for record in reading.records if isinstance(record, Triplet) for tag in record.tags)
    tasks = Counter(task for record in reading.records for task in tasks_of(record))
    words = Counter(record.captions.get("foreground", "") for record in reading.records if isinstance(record, Triplet))
    lines = [
        _row("records", kinds), _row("splits", splits), _row("tags", tags),
        f"tasks     {len(tasks)}: {', '.join(tasks)}",
        f"captions  {len(words)} different, such as {', '.join(word for word, _ in words.most_common(5))}",
    ]  # fmt: skip
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
    sheet = Sheet(f"{Path(path).name}: what each task gives and asks for", ["input", "guide", "answer", "answer"])
    for task in [*(task for task in TASKS if task in by_task), *(task for task in by_task if task not in TASKS)]:
        example = derive(by_task[task][rng.integers(len(by_task[task]))], task, rng)
        inputs = [*example.inputs, None, None][:2]
        sheet.add(task, [example.text or "(no text)"], [*inputs, *example.targets[:2]])
    sheet.save(out)


def _row(name: str, counts: Counter) -> str:
    return f"{name:10}" + (", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none")
