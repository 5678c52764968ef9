"""Plots and contact sheets of an evaluation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.examples import tasks_of
from ..data.records import Record
from ..errors import OmniAlphaError
from ..files.pictures import read_layer
from ..files.sheet import Sheet
from ..files.writing import write_over, writing
from ..layers.compositing import grey_layer, over_colour
from .cases import Case, make_case
from .measures import deciding, measure
from .results import METHODS, Results
from .run import answer_path

COLOURS = ("#2a6f97", "#6fb1d1", "#c9cbd1", "#a7aab3", "#dfe0e4", "#e09f3e", "#9e2a2b")  # of METHODS, in order
LINE = 36  # characters of a line on a sheet


def draw_sheets(out: Path, records: Sequence[Record], results: Results, seed: int) -> list[Path]:
    """A contact sheet per task from the answers kept in `out`: input, guide, answer, truth, and where they differ.

    Where refined objects were measured, they stand beside the answer.

    Raises:
        OmniAlphaError: the disk is full.
    """
    paths = []
    for task in results.tasks:
        rows = {row["record"]: row for row in results.rows if row["task"] == task and "values" in row}
        sheet = None
        for k, record in enumerate(records):
            if record.id not in rows or task not in tasks_of(record):
                continue
            try:
                case = make_case(record, task, seed)
                names = [*case.names, *(["refined"] if "refined" in rows[record.id]["values"] else [])]
                answers = [read_layer(answer_path(out, k, task, name)) for name in names]
            except OmniAlphaError:  # beyond those that were kept, or damaged since
                continue
            sheet = sheet or _sheet(case, names)
            sheet.add(record.id, _lines(case, rows[record.id]), _cells(case, answers))
        if sheet:
            paths.append(out / "sheets" / f"{task}.png")
            _make_folder(paths[-1].parent)
            sheet.save(paths[-1])
    return paths


def _sheet(case: Case, answers: Sequence[str]) -> Sheet:
    given = ["input", "guide", *["input"] * 8][: max(2, len(case.inputs))]
    columns = (("answer", answers), ("truth", case.names), ("error", case.names))
    return Sheet(case.task, [*given, *(f"{part}: {name}" for part, names in columns for name in names)])


def _lines(case: Case, row: dict) -> list[str]:
    words = textwrap.wrap(f'"{case.text}"', LINE, max_lines=2, placeholder=" …") if case.text else []
    shown = [measure(name, case.task) for name in deciding(case.task)]
    return words + [f"{item.words}: {row['values']['model'][item.name] * item.factor:.3g}" for item in shown]


def _cells(case: Case, answers: list[Tensor]) -> list[Tensor | None]:
    given = [*case.inputs, *[None] * (2 - len(case.inputs))]
    return [*given, *answers, *case.targets, *(_error(one, true) for one, true in zip(answers, case.targets))]


def _error(answer: Tensor, truth: Tensor) -> Tensor:
    """The absolute difference over grey as a picture, black where there is none; of alpha alone in a matte's shape."""
    grey = (0.5, 0.5, 0.5)
    colour = (over_colour(answer, grey) - over_colour(truth, grey)).abs().amax(0)
    return grey_layer(torch.maximum(colour, (answer[3] - truth[3]).abs()).clamp(0, 1))


def draw_plots(out: Path, results: Results) -> list[Path]:
    """A plot per task: means of every method with their standard errors, and each method's sorted values.

    Raises:
        OmniAlphaError: matplotlib is missing, or the disk is full.
    """
    paths = []
    for task in results.tasks:
        if methods := results.methods(task):
            paths.append(out / "plots" / f"{task}.png")
            _save(_task_figure(results, task, methods), paths[-1])
    compared = {task: value for task in results.tasks if (value := _share_of_naive(results, task)) is not None}
    if compared:
        paths.append(out / "plots" / "overview.png")
        _save(_overview(compared), paths[-1])
    return paths


def _task_figure(results: Results, task: str, methods: Sequence[str]):
    names = deciding(task)
    figure, axes = _figure(9, 3.2 * len(names), len(names), 2)
    for (bars, curves), name in zip(axes, names):
        row = measure(name, task)
        for k, method in enumerate(methods):
            values = sorted(value * row.factor for value in results.values(task, method, name).values())
            summary = results.summary_of(task, method, name)
            error = summary["standard_error"] * row.factor if summary else 0.0
            label, colour = METHODS.get(method, method), _colour(method)
            bars.barh(k, sum(values) / len(values), xerr=error, color=colour, ecolor="#555", capsize=3)
            curves.plot(
                np.arange(1, len(values) + 1),
                np.array(values),
                color=colour,
                label=label,
                linewidth=2.2 if k == 0 else 1.4,
                marker="." if len(values) < 3 else None,
            )
        bars.set_yticks(range(len(methods)), [textwrap.fill(METHODS.get(m, m), 16) for m in methods], fontsize=8)
        bars.invert_yaxis()
        better = "higher" if row.higher_is_better else "lower"
        bars.set_xlabel(f"{row.words} ({better} is better)", fontsize=8)
        curves.set_xlabel("records, sorted by value", fontsize=8)
        curves.set_ylabel(row.words, fontsize=8)
        if not row.higher_is_better and min(line.get_ydata().min() for line in curves.lines) > 0:
            curves.set_yscale("log")  # a naive answer is often a hundred times worse
        curves.xaxis.get_major_locator().set_params(integer=True)
        curves.legend(fontsize=7, frameon=False)
    figure.suptitle(f"{task}: mean of {len(results.values(task, methods[0], names[0]))} records", fontsize=11)
    return figure


def _share_of_naive(results: Results, task: str) -> float | None:
    """Error of the model as a share of the best naive answer's; PSNR counts as root mean square error."""
    shares = []
    for name in deciding(task):
        row = measure(name, task)
        means = {method: results.mean(task, method, name) for method in ("model", "copy", "opaque", "empty")}
        naive = [value for method, value in means.items() if method != "model" and value is not None]
        if means["model"] is None or not naive:
            return None
        if row.higher_is_better:
            shares.append(10 ** ((max(naive) - means["model"]) / 20))
        else:
            shares.append(means["model"] / max(min(naive), 1e-12))
    return max(shares)


def _overview(shares: dict[str, float]):
    figure, ((axis,),) = _figure(8, 1.2 + 0.3 * len(shares), 1, 1)
    axis.barh(list(shares), list(shares.values()), color=[COLOURS[0 if share < 1 else -1] for share in shares.values()])
    axis.axvline(1, color="#555", linewidth=1)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel("error as a share of the best naive answer's (below 1 is better than naive)", fontsize=8)
    return figure


def _figure(width: float, height: float, rows: int, columns: int):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OmniAlphaError("Plots need matplotlib: pip install -r requirements-train.txt") from error
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colour(method: str) -> str:
    return dict(zip(METHODS, COLOURS)).get(method, COLOURS[0])


def _save(figure, path: Path) -> None:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    _make_folder(path.parent)
    write_over(path, buffer.getvalue())


def _make_folder(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
