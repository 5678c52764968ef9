"""One pipeline that does the jobs of a batch, wherever it runs: pictures in by path or address, layers out as PNG."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import OmniAlphaError
from .addresses import locate
from .jobs import version

ROLES = ("image", "guide")


class Changed(OmniAlphaError):
    """An input file is not what it was when the run was planned."""


class Painter:
    """A pipeline on a device.

    Raises:
        OmniAlphaError: there is no such checkpoint or device.
    """

    def __init__(self, checkpoint: str, device: str):
        from ..device import find_device
        from ..pipeline import load

        self.pipeline = load(checkpoint, find_device(device))

    def paint(self, values: Mapping[str, Any]) -> tuple[list[tuple[str, bytes]], float]:
        """The layers of a job as (name, PNG), back to front, and the seconds it took.

        Args:
            values: inputs of the graph's node `task`; for `image` and `guide` the file's path and `jobs.version`.

        Raises:
            OmniAlphaError: the inputs cannot be used; `Changed` where they are other files than planned.
            OSError: they cannot be read.
        """
        from ..files.pictures import write_layer
        from ..files.results import KEY
        from ..request import Request

        started = time.perf_counter()
        pictures = {role: _picture(*values[role]) for role in ROLES if role in values}
        request = Request(
            task=values["task"],
            instruction=values["instruction"] or None,
            images=[pictures["image"]] if "image" in pictures else [],
            guide=pictures.get("guide"),
            text=values["text"],
            seed=values["seed"],
            steps=values["steps"] or None,
            guidance=values["guidance"] or None,
            negative=values["negative"],
            pixels=values["pixels"],
            look=values["look"],
        )
        plan = request.plan(self.pipeline.settings)
        layers = self.pipeline.run(plan)
        note = plan.record() | {role: PurePosixPath(values[role][0]).name for role in ("checkpoint", *pictures)}
        note = {KEY: json.dumps(note, ensure_ascii=False)}
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, (layer, name) in enumerate(zip(layers, plan.names)):
                path = Path(folder, f"{number}.png")
                write_layer(layer, path, note)
                found.append((name, path.read_bytes()))
        return found, time.perf_counter() - started


def _picture(name: str, known: str):
    """A file that is still what it was, as a layer."""
    from ..files.pictures import decode_layer

    path = locate(name)
    try:
        if version(path) != known:
            raise Changed(f"{name} changed while the run was going on; run the command again.")
        return decode_layer(path.read_bytes(), name)
    except FileNotFoundError:
        raise Changed(f"{name} is not there, seen from {socket.gethostname()}.") from None
