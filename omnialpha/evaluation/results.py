"""What an evaluation found: means with their standard errors, paired comparisons, tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..tasks import TASKS
from .measures import Measure, deciding, measure, measures_of, naive_methods

METHODS = {
    "model": "model",
    "refined": "model, refined",
    "copy": "copy the input",
    "opaque": "all opaque",
    "empty": "empty",
    "closed_form": "closed form, given the trimap",
    "knn": "KNN, given the trimap",
}
GIVEN = ("copy", "opaque")  # the naive answers that a task counts as learnt when it beats
NONE = "-"


@dataclass(frozen=True)
class Results:
    """The lines of an evaluation, see `run.LINES`; those with a "problem" have no values."""

    rows: Sequence[dict[str, Any]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the table's order."""
        found = {row["task"]: None for row in self.rows}
        return tuple(sorted(found, key=lambda task: [*TASKS, task].index(task)))

    def methods(self, task: str) -> tuple[str, ...]:
        """The methods that were measured on a task, the model first."""
        found = {method for row in self._of(task) for method in row["values"]}
        return tuple(sorted(found, key=lambda name: [*METHODS, name].index(name)))

    def values(self, task: str, method: str, name: str) -> dict[str, float]:
        """Record's id -> value of a measure; records that a method could not do are left out."""
        return {row["record"]: row["values"][method][name] for row in self._of(task) if method in row["values"]}

    def summary_of(self, task: str, method: str, name: str) -> dict[str, float] | None:
        """Mean of a measure over the records, its standard error, and their count; None where there are none."""
        return _summary(self.values(task, method, name).values())

    def mean(self, task: str, method: str, name: str) -> float | None:
        """The mean alone."""
        return (self.summary_of(task, method, name) or {}).get("mean")

    def paired(self, task: str, method: str, name: str) -> dict[str, float] | None:
        """The model against a method on the records both did: both means, the mean difference, its standard error."""
        ours, theirs = self.values(task, "model", name), self.values(task, method, name)
        shared = [record for record in ours if record in theirs]
        difference = _summary([ours[record] - theirs[record] for record in shared])
        if difference is None:
            return None
        return {
            "model": fmean(ours[record] for record in shared),
            method: fmean(theirs[record] for record in shared),
            "difference": difference["mean"],
            "standard_error": difference["standard_error"],
            "records": len(shared),
        }

    def beats(self, task: str, method: str) -> bool | None:
        """Is the model better than a method in the mean, by every measure that decides? None where it was not run."""
        pairs = [(measure(name, task), self.paired(task, method, name)) for name in deciding(task)]
        done = [(row, pair) for row, pair in pairs if pair]
        if len(done) < len(pairs):
            return None
        return all(pair["difference"] > 0 if row.higher_is_better else pair["difference"] < 0 for row, pair in done)

    def problems(self) -> list[dict[str, str]]:
        """What was left out, and why: {"record", "task", "reason"}, with "method" where only that failed."""
        found = []
        for row in self.rows:
            where = {"record": row["record"], "task": row["task"]}
            if "problem" in row:
                found.append(where | {"reason": row["problem"]})
            found += [where | {"method": name, "reason": why} for name, why in row.get("problems", {}).items()]
        return found

    def summary(self) -> dict[str, Any]:
        """Task -> counts, every method's means, and how the model compares; ready for JSON."""
        return {task: self._summary_of(task) for task in self.tasks}

    def _summary_of(self, task: str) -> dict[str, Any]:
        rows, methods = self._of(task), self.methods(task)
        names = [row.name for row in measures_of(task)] if rows else []
        means = {method: {name: self.summary_of(task, method, name) for name in names} for method in methods}
        others = [method for method in methods if method != "model"]
        return {
            "records": len(rows),
            "left_out": sum(row["task"] == task for row in self.rows) - len(rows),
            "pixels": _range(row["pixels"] for row in rows),
            "unknown_pixels": _range(row["unknown_pixels"] for row in rows if "unknown_pixels" in row),
            "deciding": list(deciding(task)),
            "methods": means,
            "against": {
                method: {name: self.paired(task, method, name) for name in deciding(task)}
                | {"better": self.beats(task, method)}
                for method in others
            },
        }

    def table(self, every: bool = False) -> str:
        """A Markdown table: a row per task and measure that decides (every measure if told), a column per method."""
        methods = [name for name in METHODS if any(name in self.methods(task) for task in self.tasks)]
        others = [name for task in self.tasks for name in self.methods(task) if name not in METHODS]
        methods += list(dict.fromkeys(others))
        judged = any(naive_methods(task)[0] in self.methods(task) for task in self.tasks)
        head = ["task", "measure", "records", "pixels", *(METHODS.get(name, name) for name in methods)]
        lines = [head + (["beats naive"] if judged else [])]
        for task in self.tasks:
            rows = self._of(task)
            names = [row.name for row in measures_of(task)] if every else list(deciding(task))
            for k, row in enumerate(measure(name, task) for name in names):
                facts = [task, str(len(rows)), _words(_range(item["pixels"] for item in rows))] if k == 0 else [""] * 3
                cells = [self._cell(task, method, row) for method in methods]
                verdict = [self._verdict(task) if k == 0 else ""] if judged else []
                arrow = "↑" if row.higher_is_better else "↓"
                lines.append([facts[0], f"{row.words} {arrow}", *facts[1:], *cells, *verdict])
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def _cell(self, task: str, method: str, row: Measure) -> str:
        found = self.values(task, method, row.name)
        if not found:
            return NONE
        short = f" ({len(found)})" if len(found) < len(self._of(task)) else ""
        return f"{fmean(found.values()) * row.factor:.4g}{short}"

    def _verdict(self, task: str) -> str:
        found = [self.beats(task, name) for name in naive_methods(task) if name in GIVEN]
        return NONE if None in found else "yes" if all(found) else "no"

    def csv(self) -> str:
        """One line per record, task, method and measure."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["record", "task", "method", "measure", "value", "pixels", "unknown_pixels"])
        for row in self.rows:
            for method, values in row.get("values", {}).items():
                for name, value in values.items():
                    region = row.get("unknown_pixels", "") if name.endswith("_unknown") else ""
                    writer.writerow([row["record"], row["task"], method, name, value, row["pixels"], region])
        return buffer.getvalue()

    def _of(self, task: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["task"] == task and "values" in row]


def _summary(values) -> dict[str, float] | None:
    """Mean, its standard error (0 for a single value) and count."""
    values = list(values)
    if not values:
        return None
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": fmean(values), "standard_error": error, "records": len(values)}


def _range(values) -> list[int] | None:
    values = list(values)
    return [min(values), max(values)] if values else None


def _words(pair: list[int] | None) -> str:
    if not pair:
        return NONE
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"
