"""What became of a batch: report.json, report.csv and report.md, and an exit code that tells."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.writing import write_over
from .journal import Journal

FINISHED, SET_ASIDE, UNFINISHED, STOPPED = 0, 3, 4, 130
COLUMNS = ("name", "state", "kind", "reason", "results", "server", "seconds", "attempts", "inputs", "id")


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by state, reasons by kind, and per server how many jobs it did and how long each took it."""
    states = Counter(row["state"] for row in rows)
    done = [row for row in rows if row["state"] == "done"]
    servers = {}
    for name in sorted({row["server"] for row in done}):
        mine = [row for row in done if row["server"] == name]
        times = sorted(row["seconds"] for row in mine if row["seconds"] is not None)
        servers[name] = {"done": len(mine), "median seconds": round(times[len(times) // 2], 2) if times else None}
    return {
        "jobs": len(rows),
        "done": states["done"],
        "set aside": states["set aside"],
        "unfinished": len(rows) - states["done"] - states["set aside"],
        "results": sum(len(row["results"]) for row in done),
        "reasons": dict(Counter(row["kind"] for row in rows if row["state"] == "set aside").most_common()),
        "servers": servers,
    }


def exit_code(summary: dict[str, Any], end: str = "finished") -> int:
    """0: every job has its results. 3: the rest was set aside. 4: some are unfinished. 130: stopped by Ctrl-C."""
    if end == "stopped":
        return STOPPED
    return UNFINISHED if summary["unfinished"] else SET_ASIDE if summary["set aside"] else FINISHED


def write_reports(folder: Path, journal: Journal, jobs: Sequence[str], end: str) -> tuple[dict[str, Any], list[Path]]:
    """Writes the three reports about these jobs, in place of those of the run before.

    Returns:
        The summary, and the files.

    Raises:
        DiskError: they cannot be written.
    """
    rows = journal.table(jobs)
    summary = {**summarise(rows), "end": end}
    contents = {
        "report.json": json.dumps({**summary, "list": rows}, indent=1, ensure_ascii=False) + "\n",
        "report.csv": as_csv(rows),
        "report.md": as_markdown(summary, rows),
    }
    for name, text in contents.items():
        write_over(folder / name, text)
    return summary, [folder / name for name in contents]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line per job."""
    text = io.StringIO()
    table: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    table.writeheader()
    for row in rows:
        table.writerow({**row, "results": " | ".join(row["results"]), "inputs": json.dumps(row["inputs"])})
    return text.getvalue()


def as_markdown(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The summary for people: what is missing first."""
    lines = [
        "# Batch",
        "",
        f"{summary['done']} of {summary['jobs']} jobs are done, with {summary['results']} files. "
        f"{summary['set aside']} were set aside, {summary['unfinished']} are unfinished. The run: {summary['end']}.",
    ]
    aside = [row for row in rows if row["state"] == "set aside"]
    if aside:
        lines += ["", "| set aside | why | reason |", "|---|---|---|"]
        lines += [f"| {_cell(row['name'])} | {row['kind']} | {_cell(row['reason'])} |" for row in aside]
    if summary["servers"]:
        lines += ["", "| server | jobs done | median seconds |", "|---|---|---|"]
        lines += [f"| {name} | {row['done']} | {row['median seconds']} |" for name, row in summary["servers"].items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
