"""Jobs: rows whose inputs were found in the workflow and whose files were read, each with an id of its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from .addresses import fingerprint, is_address, locate
from .naming import result_path
from .rows import Row
from .workflow import Target, Workflow

Hasher = Callable[[Path], str]


@dataclass(frozen=True)
class File:
    """An input file, as it was when the run was planned.

    Attributes:
        path: on this machine, or at an address, see `addresses.locate`.
        sha256: see `version`.
    """

    path: Path
    sha256: str

    @property
    def upload_name(self) -> str:
        """What it is called on a server: by its content, so that sending it twice changes nothing."""
        return f"{self.sha256[:24]}{self.path.suffix.lower()}"


@dataclass(frozen=True)
class Job:
    """One run of the workflow.

    Attributes:
        id: hash of the workflow, the job's name and values, and the content of its files; equal jobs have equal ids.
        name: what results are named after.
        folder: subfolder the job's picture lay in, below the fixed part of its pattern.
        number: place in the list, from 1.
        values: input -> value, or `File`.
    """

    id: str
    name: str
    folder: str
    number: int
    values: Mapping[Target, Any] = field(repr=False)

    @property
    def files(self) -> list[File]:
        """Its input files."""
        return [value for value in self.values.values() if isinstance(value, File)]

    def fields(self) -> dict[str, Any]:
        """What a name's template may use before results are there."""
        return {"job": self.name, "folder": self.folder, "number": self.number, "id": self.id[:12]}


def make_jobs(workflow: Workflow, rows: Iterable[Row], template: str, hasher: Hasher | None = None) -> list[Job]:
    """The jobs of these rows; rows that mean the same job give one.

    Args:
        template: how results are named; looked at here, so that a bad one is found before anything runs.
        hasher: what tells a file's content from others, in hexadecimal; `version` where left out.

    Raises:
        OmniAlphaError: an input or a file that is not there, two jobs whose results would have the same names.
    """
    hasher = hasher or version
    graph, jobs, names = _digest(workflow.content()), {}, {}
    for row in rows:
        values = {}
        for name, raw in row.values.items():
            try:
                target = workflow.find(name)
                values[target] = _value(workflow, target, raw, row.base, hasher)
            except OmniAlphaError as error:
                raise OmniAlphaError(f"{row.where}: {error}" if row.where else str(error)) from None
        plain = {
            f"{target.node}.{target.input}": [value.sha256, value.path.name] if isinstance(value, File) else value
            for target, value in values.items()
        }
        key = _digest([graph, row.folder, row.name, plain])
        if key in jobs:
            continue
        job = Job(key, row.name, row.folder, len(jobs) + 1, values)
        wanted = result_path(template, {**job.fields(), "index": 1, "node": "node", "name": "name"}, "").casefold()
        if wanted in names:
            raise OmniAlphaError(
                f"The results of '{row.name}' and '{names[wanted]}' would have the same names ({wanted}). Use {{job}}, "
                f"{{folder}} or {{number}} in --name, or give the jobs different names."
            )
        jobs[key], names[wanted] = job, row.name
    return list(jobs.values())


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def version(path: Path) -> str:
    """What tells a file's content from others: its sha256, or at an address, where reading costs, its fingerprint.

    Raises:
        OSError: it cannot be read.
    """
    return fingerprint(path) if is_address(path) else sha256(path)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _value(workflow: Workflow, target: Target, raw: Any, base: Path, hasher: Hasher) -> Any:
    """A file for an input that takes one, or where "@" says so; else the value in the workflow's own kind."""
    named = isinstance(raw, str) and raw.startswith("@")
    if not (named or workflow.takes_file(target)):
        return workflow.convert(target, raw)
    text = str(raw)[1:] if named else str(raw)
    path = locate(text) if is_address(text) else base / os.path.expanduser(text)
    try:
        return File(path, hasher(path))
    except OSError as error:
        raise OmniAlphaError(
            f"{path} for {workflow.describe(target)} cannot be read: {error.strerror or error}."
        ) from error


def describe(workflow: Workflow, jobs: Sequence[Job], template: str, limit: int = 10) -> str:
    """The plan in words: the first jobs with what they change and what their first result is called."""
    lines = [f"{len(jobs)} jobs of {workflow.name}"]
    for job in jobs[:limit]:
        first = result_path(template, {**job.fields(), "index": 1, "node": "NODE", "name": "NAME"}, ".png")
        lines.append(f"{job.number:6}  {job.name} -> {first}, ...")
        for target, value in job.values.items():
            shown = value.path if isinstance(value, File) else json.dumps(value, ensure_ascii=False)
            lines.append(f"        {workflow.title(target.node)}.{target.input} = {shown}")
    return "\n".join([*lines, f"        ... and {len(jobs) - limit} more"] if len(jobs) > limit else lines)
