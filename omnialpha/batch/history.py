"""What became of a job on a server: ComfyUI's history read strictly, and how often each failure is tried again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Failure -> how many times a job may meet it before it is set aside; None: as often as it comes, it is not the job's
# fault. One that says nothing about the server (a bad picture) is tried once more, since a GPU that ran out of memory
# looks no different.
LIMITS: dict[str, int | None] = {
    "refused": 1,  # the graph or a value is invalid
    "too large": 1,  # HTTP 413
    "changed": 1,  # an input file is not what it was when the run was planned
    "no results": 1,  # it ran and saved nothing
    "failed": 2,  # a node raised an error
    "interrupted": 3,  # somebody pressed stop
    "vanished": 3,  # neither queued nor done, though the server was up all the time: deleted from the queue
    "crashed": 3,  # the server went away while it ran
    "damaged": 3,  # a result does not open, or is not there
    "server error": 3,  # HTTP 500 in answer to it, while other jobs did fine
    "forgotten": None,  # the server was restarted before it came to the job
    "moved": None,  # given to another server, since this one did not answer
}


@dataclass(frozen=True)
class Output:
    """A result on a server.

    Attributes:
        node: id of the node that made it.
        filename, subfolder, type: what `/view` wants to know.
        text: the result itself, where it is text and no file.
    """

    node: str
    filename: str
    subfolder: str = ""
    type: str = "output"
    text: str | None = None


@dataclass(frozen=True)
class Success:
    """Results and how long the server worked on them, in seconds where it says so."""

    outputs: tuple[Output, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Failure:
    """A kind of `LIMITS` and its reason in words; `servers_fault` where the machine ran out of memory or disk."""

    kind: str
    reason: str
    servers_fault: bool = False


def read_entry(entry: Mapping[str, Any], previews: bool = False) -> Success | Failure:
    """What a history entry says.

    The messages count, not the status alone: an interrupt ends as "error", with `execution_interrupted` among its
    messages.

    Args:
        previews: take preview files as well; without, they count only where nothing was saved.
    """
    status = entry.get("status") or {}
    messages = {name: data for name, data in status.get("messages") or [] if isinstance(data, dict)}
    if "execution_interrupted" in messages:
        return Failure("interrupted", f"Interrupted on the server{_at(messages['execution_interrupted'])}.")
    if "execution_error" in messages:
        error = messages["execution_error"]
        kind, text = str(error.get("exception_type", "")), str(error.get("exception_message", "")).strip()
        fault = bool(re.search(r"OutOfMemory|No space left|out of memory|CUDA error", f"{kind} {text}"))
        return Failure("failed", f"{kind.rsplit('.', 1)[-1]}: {text}{_at(error)}", fault)
    if status.get("status_str", "success") != "success":
        return Failure("failed", f"The server says {status.get('status_str')!r} and no reason.")
    found = list(_outputs(entry.get("outputs") or {}))
    saved = [output for output in found if output.type != "temp" and output.text is None]
    outputs = found if previews or not saved else saved
    if not outputs:
        return Failure("no results", "The workflow ran and saved nothing; add a node that saves, such as Save Layers.")
    return Success(tuple(outputs), _seconds(messages))


def refusal(answer: Mapping[str, Any]) -> str | None:
    """Why `/prompt` refused a graph, or part of it, in words; None where it did not.

    Node errors in an answer of 200 mean that ComfyUI left out the branches they are in: results would be missing.
    """
    reasons = [
        f"{node.get('class_type', 'node')} {key}: {error.get('message', 'invalid')} ({error.get('details', '')})"
        for key, node in (answer.get("node_errors") or {}).items()
        for error in node.get("errors", [])
    ]
    error = answer.get("error")
    if not reasons and error:
        parts = [error.get("message"), error.get("details")] if isinstance(error, dict) else [error]
        reasons = [" ".join(str(part) for part in parts if part)]
    return "; ".join(reasons) or None


def _outputs(outputs: Mapping[str, Any]):
    """Files and texts, whatever list of a node's answer they are in (images, gifts, audio, 3d, ...).

    Sorted by node: ComfyUI runs its output nodes in an order that differs from one start to the next, and the numbers
    in results' names must not.
    """
    for node, answer in sorted(outputs.items(), key=lambda item: [(len(part), part) for part in item[0].split(":")]):
        for name, entries in answer.items() if isinstance(answer, dict) else ():
            for entry in entries if isinstance(entries, (list, tuple)) else ():
                if isinstance(entry, dict) and entry.get("filename"):
                    place = str(entry.get("subfolder") or ""), str(entry.get("type") or "output")
                    yield Output(node, str(entry["filename"]), *place)
                elif name == "text" and isinstance(entry, str):
                    yield Output(node, "text.txt", text=entry)


def _seconds(messages: Mapping[str, Any]) -> float | None:
    try:
        return (messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]) / 1000
    except (KeyError, TypeError):
        return None


def _at(message: Mapping[str, Any]) -> str:
    return f" (node {message.get('node_id')}, {message.get('node_type')})" if message.get("node_id") else ""
