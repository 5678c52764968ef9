"""A ComfyUI server in memory, with a clock of its own, for tests of batches that take thousands of steps.

It offers what `omnialpha.batch.server.Server` does and keeps to what was seen of ComfyUI 0.8: an accepted graph is in
the queue until its history entry is there; a killed server forgets both and keeps its files.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image

from omnialpha.batch.history import Output, refusal
from omnialpha.batch.results import Damaged
from omnialpha.batch.server import Queue, Refused, ServerTrouble

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "some.png"}, "_meta": {"title": "Your picture"}},
    "2": {"class_type": "Cut", "inputs": {"image": ["1", 0], "strength": 1, "on": True, "text": "a"}, "_meta": {}},
    "3": {"class_type": "Save", "inputs": {"images": ["2", 0]}, "_meta": {"title": "Save"}},
}
BAD = b"no picture"  # an input file with this content fails when it runs
KILLER = b"kills"  # and with this one it takes the server with it


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def picture(text: str) -> bytes:
    """A PNG that depends on a text."""
    image = Image.new("RGBA", (4, 4), tuple(text.encode().ljust(4, b"\0")[-4:]))
    image.putpixel((0, 0), tuple(sum(text.encode()).to_bytes(4, "big")))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class PretendServer:
    """A server; `work` does one step of it, `kill` and `start` are what happens to real ones."""

    def __init__(self, name: str = "http://one", outputs: int = 2):
        self.name, self.outputs, self.up = name, outputs, True
        self.files: dict[str, bytes] = {}
        self.saved: dict[str, bytes] = {}
        self.executed: list[str] = []  # input names, in order
        self.submitted: list[str] = []
        self.unqueued: list[str] = []
        self.remembered: dict[str, list[dict]] = {}  # a graph as text -> the files it had
        self.stalled = False
        self._forget()

    def _forget(self) -> None:
        self.running: tuple | None = None
        self.pending: list[tuple] = []
        self.entries: dict[str, dict] = {}

    def kill(self) -> None:
        """SIGKILL."""
        self.up = False
        self._forget()

    def start(self) -> None:
        """Started again, with the files of before."""
        self.up, self.stalled = True, False

    def stall(self) -> None:
        """Its thread for graphs died; the one for requests lives."""
        self.stalled = True

    def work(self) -> None:
        """Begin a waiting graph, or finish the one that runs."""
        if not self.up or self.stalled:
            return
        if self.running is None:
            self.running = self.pending.pop(0) if self.pending else None
            return
        prompt_id, prompt = self.running
        content = self.files[prompt["1"]["inputs"]["image"]]
        if content == KILLER:
            self.kill()
            return
        self.running = None
        self.executed.append(prompt["1"]["inputs"]["image"])
        self.entries[prompt_id] = self._entry(prompt_id, prompt, content)

    def _entry(self, prompt_id: str, prompt: dict, content: bytes) -> dict:
        if content == BAD:
            error = {
                "node_id": "1",
                "node_type": "LoadImage",
                "exception_type": "PIL.UnidentifiedImageError",
                "exception_message": "cannot identify image file",
            }
            return {"outputs": {}, "status": {"status_str": "error", "messages": [["execution_error", error]]}}
        files = self.remembered.setdefault(json.dumps(prompt), [])
        for layer in range(len(files), self.outputs):
            name = f"cut_{len(self.saved):05}_.png"
            self.saved[name] = picture(json.dumps([prompt, content.decode(errors="replace"), layer]))
            files.append({"filename": name, "subfolder": "", "type": "output"})
        messages = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3000}]]
        return {"outputs": {"3": {"images": files}}, "status": {"status_str": "success", "messages": messages}}

    # What `Server` offers

    def check(self) -> str:
        self._answer()
        return "0.8.0"

    def lacking(self, classes) -> list[str]:
        self._answer()
        return []

    def upload(self, path: Path, name: str) -> str:
        self._answer()
        self.files[name] = path.read_bytes()
        return name

    def submit(self, prompt, prompt_id: str, client_id: str) -> str:
        self._answer()
        reason = refusal(self.validate(prompt))
        if reason:
            raise Refused(reason)
        self.submitted.append(prompt_id)
        self.pending.append((prompt_id, prompt))
        return prompt_id

    def validate(self, prompt) -> dict:
        """What ComfyUI says of a graph; tests replace it."""
        return {"node_errors": {}}

    def queue(self) -> Queue:
        self._answer()
        return Queue({self.running[0]} if self.running else set(), {prompt_id for prompt_id, _ in self.pending})

    def history(self, prompt_id: str):
        self._answer()
        return self.entries.get(prompt_id)

    def unqueue(self, prompt_ids: list[str]) -> None:
        self._answer()
        self.unqueued += prompt_ids
        self.pending = [item for item in self.pending if item[0] not in prompt_ids]

    def download(self, output: Output, part: Path) -> None:
        self._answer()
        if output.filename not in self.saved:
            raise Damaged(f"The server answered 404 for {output.filename}.")
        part.write_bytes(self.saved[output.filename])

    def _answer(self) -> None:
        if not self.up:
            raise ServerTrouble(f"{self.name} does not answer (connection refused).")
