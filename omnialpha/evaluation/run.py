"""Evaluating a checkpoint: record by record and task by task, with baselines; what is done is never lost.

results = evaluate("micro", read_records("data/test").records[:48], ["matting_auto"])
print(results.table())
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.examples import tasks_of
from ..data.records import Record, json_lines
from ..errors import OmniAlphaError, OmniAlphaWarning
from ..files.pictures import MAX_PIXELS, write_layer
from ..files.writing import lines_of, sweep, write_over, writing
from ..metrics import unknown
from ..tasks import TASKS, get_task
from .cases import REFINABLE, Case, draw_answer, make_case, refine_answer
from .classical import METHODS, Classical
from .classical import TASKS as CLASSICAL_TASKS
from .measures import NAIVE, is_open, measures_of, naive_methods
from .results import Results

LINES, ANSWERS = "lines.jsonl", "answers"
SAMPLES = 2  # answers drawn where the input leaves the answer open; the energy score needs two
OTHER = ("supervised", "stack")

Row = dict[str, Any]


def evaluate(
    checkpoint,
    records: Sequence[Record],
    tasks: Sequence[str] | None = None,
    *,
    seed: int = 0,
    baselines: bool = True,
    refined: bool = False,
    samples: int = SAMPLES,
    out: Path | None = None,
    keep: int = 8,
    progress: Callable[[int, int], object] | None = None,
    **options,
) -> Results:
    """Measures a checkpoint.

    Args:
        checkpoint: an `OmniAlphaPipeline`, a function that gives one once it is needed, or what `from_pretrained`
            takes.
        records: from `data.records.read_records`.
        tasks: ids of tasks, "supervised", "stack"; all that the records can serve unless told.
        seed: of guides and noise. They depend on it and on a record's id alone, not on the records around it.
        baselines: measure naive answers as well, and closed-form and KNN matting where they apply.
        refined: of matting and decomposition, measure the model's object refined as well, see `cases.refine_answer`.
        samples: answers per record where the input leaves the answer open (drawing, completion).
        out: folder for `lines.jsonl`, one line per record and task, and `answers/`; a run that stopped goes on with
            what is there. None keeps everything in memory.
        keep: so many records' answers per task are kept as PNG in `out`.
        progress: called with (done, all) after each record and task.
        options: `steps`, `guidance` and `size` in place of the checkpoint's, `pixels` and `look`.

    Raises:
        OmniAlphaError: unknown task, no record for one, a checkpoint that cannot be loaded, or a full disk. A record
            that cannot be used is no error: it is left out and named in the results.
    """
    tasks = check_tasks(records, tasks)
    jobs = [(k, record, task) for k, record in enumerate(records) for task in tasks if task in tasks_of(record)]
    rows = _read_lines(out) if out else {}
    pipeline = checkpoint if hasattr(checkpoint, "settings") else None
    classical: Classical | None = None
    for done, (k, record, task) in enumerate(jobs):
        if "problem" in rows.get((record.id, task), {"problem": ""}):
            if pipeline is None:
                pipeline = _load(checkpoint)
            if classical is None or classical.record is not record:
                classical = Classical(record, seed)
            kept = partial(answer_path, out, k, task) if out and k < keep else None
            rows[record.id, task] = row = _measure(
                pipeline,
                record,
                task,
                classical if baselines else None,
                refined=refined,
                samples=samples,
                seed=seed,
                kept=kept,
                options=options,
            )
            if out:
                _append(out / LINES, row)
        if progress:
            progress(done + 1, len(jobs))
    return Results([rows[record.id, task] for _, record, task in jobs])


def check_tasks(records: Sequence[Record], tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks in the table's order, all that the records can serve for None.

    Raises:
        OmniAlphaError: an unknown task, or one that no record can serve.
    """
    can = {task for record in records for task in tasks_of(record)}
    for task in tasks or ():
        if task not in OTHER:
            get_task(task)
        if task not in can:
            raise OmniAlphaError(f"No record can serve {task}; the data can serve: {', '.join(sorted(can)) or 'none'}.")
    return tuple(task for task in (*TASKS, *OTHER) if task in (tasks or can))


def check_options(
    samples: int = SAMPLES,
    count: int | None = None,
    keep: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Refuse numbers that would fail on every record. OmniAlphaError."""
    for name, value, low in (("samples", samples, 1), ("count", count, 1), ("keep", keep, 0), ("steps", steps, 1)):
        if value is not None and value < low:
            raise OmniAlphaError(f"{name} is {value}, expected {low} or more.")
    if guidance is not None and not math.isfinite(guidance):
        raise OmniAlphaError(f"guidance is {guidance}, expected a number such as 1.")
    if size is not None and math.prod(size) > MAX_PIXELS:
        raise OmniAlphaError(f"{size[1]}x{size[0]} pixels are too many; a layer may have {MAX_PIXELS:,}.")


def _load(checkpoint):
    if callable(checkpoint):
        return checkpoint()
    from ..device import find_device
    from ..pipeline import load

    return load(checkpoint, find_device("auto"))


def _measure(
    pipeline,
    record: Record,
    task: str,
    classical: Classical | None,
    *,
    refined: bool,
    samples: int,
    seed: int,
    kept: Callable[[str], Path] | None,
    options: Mapping,
) -> Row:
    """One line: the values of every method, or why there are none."""
    started = time.monotonic()
    row: Row = {"record": record.id, "task": task}
    try:
        case = make_case(record, task, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OmniAlphaWarning)
            drawn = [draw_answer(pipeline, case, k, **options) for k in range(samples if is_open(task) else 1)]
        values = {"model": values_of(case, drawn)}
        if refined and task in REFINABLE:
            finer = refine_answer(case, drawn[0])  # one answer: none of these tasks is open
            values["refined"] = values_of(case, [finer])
    except OmniAlphaError as error:
        return row | {"problem": str(error)}
    if kept:
        layers = dict(zip(case.names, drawn[0]))
        if "refined" in values:
            layers["refined"] = finer[case.names.index("foreground")]
        _write_answers(layers, kept)
    row |= size_of(case)
    problems = {}
    for method, answer in _baselines(case, classical):
        try:
            values[method] = values_of(case, [answer()])
        except OmniAlphaError as error:
            problems[method] = str(error)
    if problems:
        row["problems"] = problems
    return row | {"values": values, "seconds": round(time.monotonic() - started, 3)}


def values_of(case: Case, answers: list[list[Tensor]]) -> dict[str, float]:
    """Every measure of one or more answers to a case."""
    return {measure.name: measure.value(case, answers) for measure in measures_of(case.task)}


def size_of(case: Case) -> Row:
    """How many pixels the sums of a case are over."""
    height, width = case.targets[0].shape[1:]
    row: Row = {"size": [height, width], "pixels": height * width}
    if case.task.endswith("_trimap"):
        row["unknown_pixels"] = int(unknown(case.inputs[-1][0]).sum())
    return row


def _baselines(case: Case, classical: Classical | None) -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    if classical is None:
        return
    for name in naive_methods(case.task):
        yield name, lambda name=name: NAIVE[name](case)
    if case.task in CLASSICAL_TASKS:
        for name in METHODS:
            yield name, lambda name=name: classical.layers(name, case)


def answer_path(out: Path, number: int, task: str, name: str) -> Path:
    """Where the layer `name` of the first answer to record `number` is kept."""
    return out / ANSWERS / task / f"{number:04d}-{name}.png"


def _write_answers(layers: Mapping[str, Tensor], path: Callable[[str], Path]) -> None:
    for name, layer in layers.items():
        with writing(path(name).parent):
            path(name).parent.mkdir(parents=True, exist_ok=True)
        write_layer(layer, path(name))


def _read_lines(out: Path) -> dict[tuple[str, str], Row]:
    """What an earlier run wrote, the last word on each record and task. Half a line at the end is taken away."""
    path = out / LINES
    if not path.is_file():
        return {}
    sweep(out)
    good = [row for _, row in json_lines(path) if isinstance(row, dict) and {"record", "task"} <= row.keys()]
    rows = {(row["record"], row["task"]): row for row in good}
    write_over(path, lines_of(rows.values()))
    return rows


def _append(path: Path, row: Row) -> None:
    with writing(path, "Make room; the same command goes on."), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
