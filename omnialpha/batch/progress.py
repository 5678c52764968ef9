"""What a run says while it works: a bar for people, lines of JSON for programs, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol


class Progress(Protocol):
    """Told of each event; `close` ends it."""

    def __call__(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """Says nothing."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One JSON object per line on stdout, each with the time of day in seconds."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print the event."""
        print(json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False), flush=True)

    def close(self) -> None:
        """Nothing is left to say."""


class Bar:
    """A bar with rate and remaining time on stderr; what goes wrong is written above it.

    Args:
        total: jobs altogether.
        done: of them finished before.
    """

    def __init__(self, total: int, done: int):
        from tqdm import tqdm

        self.bar = tqdm(total=total, initial=done, unit="job", file=sys.stderr, smoothing=0.1, dynamic_ncols=True)
        self.set_aside = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Move the bar, or write a line."""
        if event["event"] in ("done", "set aside"):
            self.set_aside += event["event"] == "set aside"
            if self.set_aside:
                self.bar.set_postfix_str(f"{self.set_aside} set aside", refresh=False)
            self.bar.update()
        line = describe(event)
        if line:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def describe(event: Mapping[str, Any]) -> str | None:
    """An event in words, where a person wants to hear of it."""
    words = {
        "set aside": "{job}: set aside. {reason}",
        "again": "{job}: will be tried again. {reason}",
        "server up": "{server}: ComfyUI {version}",
        "server trouble": "{server}: {reason} Asking again in {retry in} s.",
        "server closed": "{reason}",
        "stopping": "Stopping: waiting for {in flight} jobs that servers have. Ctrl-C again leaves at once; they go on "
        "there, and the same command fetches them.",
    }
    return words[event["event"]].format_map(event) if event["event"] in words else None
