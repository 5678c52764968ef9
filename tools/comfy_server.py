"""A real ComfyUI server with this pack linked in, for the tests and tools that need one.

    with ComfyServer() as server:
        server.get("/object_info")

ComfyUI is looked for in $COMFYUI_PATH, above the pack when it lies in a custom_nodes folder, in ~/comfy/ComfyUI and in
~/ComfyUI; its Python in $COMFYUI_PYTHON, then in the virtual environments beside it. The server runs on the CPU, on a
free port, with a temporary base directory: it never sees nor touches the models, inputs or outputs of that ComfyUI.
Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACK = "ComfyUI-OmniAlpha"  # the folder name artists get from a clone


def find_comfyui() -> Path | None:
    """The folder of a ComfyUI (the one with main.py), or None."""
    named = os.environ.get("COMFYUI_PATH")
    home = Path.home()
    guesses = [Path(named).expanduser()] if named else [ROOT.parent.parent, home / "comfy/ComfyUI", home / "ComfyUI"]
    return next((path for path in guesses if (path / "main.py").is_file() and (path / "comfy").is_dir()), None)


def find_python(comfyui: Path) -> Path | None:
    """The Python that runs that ComfyUI, or None: $COMFYUI_PYTHON, else one beside it."""
    named = os.environ.get("COMFYUI_PYTHON")
    guesses = [Path(named).expanduser()] if named else [
        *(comfyui / folder / "bin/python" for folder in ("venv", ".venv")),
        *(comfyui / folder / "Scripts/python.exe" for folder in ("venv", ".venv")),
        comfyui.parent / "python_embeded/python.exe",  # the Windows portable build spells it so
    ]  # fmt: skip
    return next((path for path in guesses if path.is_file()), None)


def missing_comfyui() -> str | None:
    """Why no ComfyUI can be started, in words for a person; None when one can."""
    comfyui = find_comfyui()
    if comfyui is None:
        return "no ComfyUI found; set COMFYUI_PATH to its folder"
    if find_python(comfyui) is None:
        return f"no Python found beside {comfyui}; set COMFYUI_PYTHON to the one that runs it"
    return None


def find_comfy_cli() -> str | None:
    """ComfyUI's command line comfy-cli: $COMFY_CLI, else the one that `make comfy-cli` installs or one on the PATH."""
    named = os.environ.get("COMFY_CLI")
    own = ROOT / ".venv-comfy-cli/bin/comfy"
    return named or (str(own) if own.is_file() else shutil.which("comfy"))


def missing_comfy_cli() -> str | None:
    """Why comfy-cli cannot be run, in words for a person; None when it can."""
    return None if find_comfy_cli() else "no comfy-cli found; run `make comfy-cli`, or set COMFY_CLI to its `comfy`"


class ComfyServer:
    """One server process; use it as a context manager.

    Args:
        pack: folder linked into custom_nodes.
        extra_args: more of ComfyUI's own arguments.
        front_end: folder of a frontend to serve in place of the one that ComfyUI pins, None for that one.
        other_packs: source of more custom nodes by file name, for graphs that name nodes of other packs.
        model_names: files to pretend to have, below models ("vae/some.safetensors"), so that graphs which name them can
            be opened. They are empty: running such a graph fails.
        start_seconds: how long to wait for the server.

    Attributes:
        url: http://127.0.0.1:PORT once started.
        base: the temporary base directory (custom_nodes, input, output, models, ...).
        log: file with everything the server printed.
    """

    def __init__(
        self,
        pack: Path = ROOT,
        extra_args: Sequence[str] = (),
        front_end: Path | None = None,
        other_packs: Mapping[str, str] | None = None,
        model_names: Iterable[str] = (),
        start_seconds: float = 600,
    ):
        self.pack, self.extra_args, self.model_names = pack, list(extra_args), tuple(model_names)
        self.extra_args += ["--front-end-root", str(front_end)] if front_end else []
        self.other_packs = dict(other_packs or {})
        self.start_seconds = start_seconds
        self.client_id = uuid.uuid4().hex
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> ComfyServer:
        why_not = missing_comfyui()
        if why_not:
            raise RuntimeError(why_not)
        self.base = Path(tempfile.mkdtemp(prefix="omnialpha-comfy-"))
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models/omnialpha", "models/vae"):
            (self.base / folder).mkdir(parents=True)
        for name in self.model_names:
            pretended = self.base / "models" / name
            pretended.parent.mkdir(parents=True, exist_ok=True)
            pretended.touch()
        (self.base / "custom_nodes" / PACK).symlink_to(self.pack.resolve(), target_is_directory=True)
        for name, source in self.other_packs.items():
            (self.base / "custom_nodes" / name).write_text(source, encoding="utf-8")
        for picture in sorted((self.pack / "workflows/inputs").glob("*.png")):
            shutil.copy(picture, self.base / "input")
        self.log = self.base / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()
        return self

    def start(self) -> None:
        """Start the process, the first time or again after `kill`; waits until it answers."""
        comfyui = find_comfyui()
        command = [find_python(comfyui), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", self.base, "--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.extra_args], cwd=comfyui, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise

    def kill(self) -> None:
        """SIGKILL: it forgets its queue and its history; its folders stay."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *exc_info: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        tail = "\n".join(self.output().splitlines()[-30:])
        raise RuntimeError(f"ComfyUI did not come up within {self.start_seconds:.0f} s. The end of its log:\n{tail}")

    def output(self) -> str:
        """Everything the server has printed so far."""
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> dict:
        """GET `path`; the JSON it answers."""
        return self._request(urllib.request.Request(self.url + path))

    def post(self, path: str, body: dict) -> dict:
        """POST `body` as JSON to `path`; the JSON it answers, that of a refusal (HTTP 400) included."""
        data = json.dumps(body).encode()
        return self._request(urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}))

    @staticmethod
    def _request(request: urllib.request.Request) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refusal:
            text = refusal.read()
            if refusal.code != 400:  # 400 is how ComfyUI explains what is wrong with a graph
                raise RuntimeError(f"{request.full_url} answered {refusal.code}: {text[:500]!r}") from None
        return json.loads(text) if text else {}

    def run(self, prompt: dict, seconds: float = 300) -> dict:
        """Queue an API-format graph, wait for it, and return its history entry ("outputs", "status").

        Raises:
            RuntimeError: the graph was refused or failed; the message is the server's own.
            TimeoutError: not done within `seconds`.
        """
        answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})
        if "prompt_id" not in answer:
            raise RuntimeError(json.dumps(answer, indent=1))
        entry = self.wait(answer["prompt_id"], seconds)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(json.dumps(entry["status"]["messages"], indent=1))
        return entry

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry of a queued graph, once it has one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI died (exit status {self.process.returncode}):\n{self.output()[-2000:]}")
            time.sleep(0.1)
        raise TimeoutError(f"Graph {prompt_id} was not done within {seconds:.0f} s.")
