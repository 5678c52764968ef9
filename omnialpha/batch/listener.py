"""A server's websocket: says at once that something happened. What happened is asked over HTTP; this may be lost."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from ..errors import OmniAlphaError
from .server import Server

EVENTS = {"execution_success", "execution_error", "execution_interrupted"}
SILENCE = 30.0  # seconds after which an idle connection is asked whether it still is one
RETRY = 5.0


class Listener:
    """Follows a server's messages in a thread of its own, from `start` to `stop`.

    Args:
        wake: called when a job of ours may have ended.
        dropped: called when a connection broke.
    """

    def __init__(self, server: Server, client_id: str, wake: Callable[[], None], dropped: Callable[[], None]):
        parts = urlsplit(server.address)
        self.url = urlunsplit(
            (
                "wss" if parts.scheme == "https" else "ws",
                parts.netloc.rpartition("@")[2],
                f"{parts.path}/ws",
                f"clientId={client_id}",
                "",
            )
        )
        self.headers = [f"{name}: {value}" for name, value in server.headers.items()]
        if parts.username is not None:
            self.headers.append(f"Authorization: Basic {_basic(parts.username, parts.password or '')}")
        self.wake, self.dropped, self._stopped, self._socket = wake, dropped, threading.Event(), None
        self._thread = threading.Thread(target=self._follow, name=f"listen {server.name}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        _websocket()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped.set()
        if self._socket is not None:
            self._socket.abort()
        self._thread.join(2)

    def _follow(self) -> None:
        websocket = _websocket()
        while not self._stopped.is_set():
            self._socket = None
            with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
                self._socket = websocket.create_connection(
                    self.url, header=self.headers, timeout=SILENCE, redirect_limit=0
                )  # what else is to be known is asked over HTTP
                self._listen(websocket, self._socket)
            if self._socket is not None:
                self._socket.shutdown()
                self.dropped()
            self._stopped.wait(RETRY)

    def _listen(self, websocket, socket) -> None:
        asked = False
        while not self._stopped.is_set():
            try:
                kind, data = socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if asked:
                    return  # it did not even answer the ping
                asked = True
                socket.ping()
                continue
            if kind == websocket.ABNF.OPCODE_CLOSE:
                return
            asked = False
            if kind == websocket.ABNF.OPCODE_TEXT and is_end(data):
                self.wake()


def is_end(message: str | bytes) -> bool:
    """Whether a text message says that a job ended."""
    try:
        data = json.loads(message)
    except ValueError:
        return False
    if not isinstance(data, dict):
        return False
    # "executing" without a node is sent after the history entry is written, execution_success before.
    executing = data.get("type") == "executing" and (data.get("data") or {}).get("node") is None
    return executing or data.get("type") in EVENTS


def _basic(user: str, password: str) -> str:
    import base64

    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _websocket():
    try:
        import websocket
    except ImportError:
        raise OmniAlphaError(
            "Batches need requests and websocket-client: pip install -r requirements-batch.txt"
        ) from None
    return websocket
