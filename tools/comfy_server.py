"""A real ComfyUI server with this pack linked in, for the tests and tools that need one.

    with ComfyServer() as server:
        server.get("/object_info")

ComfyUI is looked for in the folders that $COMFYUI_PATH names (several are parted as in $PATH), else above the pack when
it lies in a custom_nodes folder, in ~/comfy/ComfyUI, ~/comfy/ComfyUI-new and ~/ComfyUI. Tests run on each; tools take
the first named, else the oldest. Its Python is the one in $COMFYUI_PYTHON, else in the virtual environments beside it.
The server runs on the CPU, on a free port, with a temporary base directory: it never sees nor touches the models,
inputs or outputs of that ComfyUI. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
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
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACK = "ComfyUI-OmniAlpha"  # the folder name artists get from a clone

# The releases this pack is tested on, the oldest it supports first, and where below the home folder they are expected.
TESTED = {"0.8.0": "comfy/ComfyUI", "0.33.0": "comfy/ComfyUI-new"}


class Found(NamedTuple):
    """A ComfyUI that was looked for.

    Attributes:
        version: such as "0.33.0"; of one that is not there, what was expected.
        folder: the one with main.py.
        why_not: why it cannot be started, in words for a person; None when it can.
    """

    version: str
    folder: Path
    why_not: str | None


def find_comfyuis() -> list[Found]:
    """Every ComfyUI to test on: those that $COMFYUI_PATH names, in its order; else one of each version in the usual
    places, the oldest first, and those of `TESTED` that are missing there.
    """
    if named := _named_folders():
        return [Found(version_of(folder), folder, _why_not(folder)) for folder in named]
    home = Path.home()
    guesses = [ROOT.parent.parent, *(home / below for below in TESTED.values()), home / "ComfyUI"]
    found: dict[str, Found] = {}
    for folder in filter(_is_comfyui, guesses):
        found.setdefault(version := version_of(folder), Found(version, folder, _why_not(folder)))
    for version in TESTED.keys() - found.keys():
        folder = home / TESTED[version]
        why = f"no ComfyUI {version} found; put it into {folder}, or set COMFYUI_PATH to the ComfyUIs to test on"
        found[version] = Found(version, folder, why)
    return sorted(found.values(), key=lambda one: [int(number) for number in re.findall(r"\d+", one.version)])


def find_comfyui() -> Path | None:
    """The folder of the first ComfyUI of `find_comfyuis` that can be started, or None."""
    return next((found.folder for found in find_comfyuis() if not found.why_not), None)


def missing_comfyui() -> str | None:
    """Why no ComfyUI can be started, in words for a person; None when one can."""
    return None if find_comfyui() else "; ".join(found.why_not for found in find_comfyuis())


def version_of(comfyui: Path) -> str:
    """The version a ComfyUI says it is, "unknown" where it says none."""
    file = comfyui / "comfyui_version.py"
    said = re.search(r"__version__ = \"(.+?)\"", file.read_text(encoding="utf-8")) if file.is_file() else None
    return said[1] if said else "unknown"


def find_python(comfyui: Path) -> Path | None:
    """The Python that runs that ComfyUI, or None: its own in $COMFYUI_PYTHON, else one beside it.

    $COMFYUI_PYTHON names one for all, or one for each folder of $COMFYUI_PATH in its order. An empty place in such a
    list leaves that one to what lies beside it.
    """
    named, folders = os.environ.get("COMFYUI_PYTHON", "").split(os.pathsep), _named_folders()
    if len(named) > 1:
        named = [named[folders.index(comfyui)]] if len(named) == len(folders) and comfyui in folders else []
    guesses = (
        [Path(path).expanduser() for path in named]
        if any(named)
        else [
            *(comfyui / folder / "bin/python" for folder in ("venv", ".venv")),
            *(comfyui / folder / "Scripts/python.exe" for folder in ("venv", ".venv")),
            comfyui.parent / "python_embeded/python.exe",  # the Windows portable build spells it so
        ]
    )
    return next((path for path in guesses if path.is_file()), None)


def _named_folders() -> list[Path]:
    return [Path(path).expanduser() for path in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if path]


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _why_not(comfyui: Path) -> str | None:
    if not _is_comfyui(comfyui):
        return f"COMFYUI_PATH names {comfyui}, which is no ComfyUI (it has no main.py beside a folder comfy)"
    pythons, folders = os.environ.get("COMFYUI_PYTHON", "").count(os.pathsep) + 1, len(_named_folders())
    if pythons > 1 and pythons != folders:
        return (
            f"COMFYUI_PYTHON names {pythons} and COMFYUI_PATH {folders}; name one Python for all, or as many as folders"
        )
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
        comfyui: folder of the ComfyUI to start, None for the first that is found.

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
        comfyui: Path | None = None,
    ):
        self.pack, self.extra_args, self.model_names = pack, list(extra_args), tuple(model_names)
        self.extra_args += ["--front-end-root", str(front_end)] if front_end else []
        self.other_packs = dict(other_packs or {})
        self.start_seconds, self.comfyui = start_seconds, comfyui or find_comfyui()
        self.client_id = uuid.uuid4().hex
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> ComfyServer:
        why_not = _why_not(self.comfyui) if self.comfyui else missing_comfyui()
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
        command = [find_python(self.comfyui), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", self.base, "--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.extra_args],
                cwd=self.comfyui,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
            )
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
