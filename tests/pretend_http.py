"""A pretended ComfyUI that speaks HTTP, for tests of the requests themselves and of the whole command."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pretend import PretendServer

from omnialpha.batch.server import Refused, ServerTrouble


class HttpServer(PretendServer):
    """Use it as a context manager; `url` is its address.

    Attributes:
        answers: path -> list of (status, body) that are given first, one per request; body None hangs up.
        seen: (method, path, headers) of every request.
        pace: seconds per step of work.
    """

    def __init__(self, pace: float = 0.01, **options):
        super().__init__(**options)
        self.answers: dict[str, list[tuple[int, bytes | None]]] = {}
        self.seen: list[tuple[str, str, dict]] = []
        self.pace, self.lock, self._ended = pace, threading.RLock(), threading.Event()

    def __enter__(self) -> HttpServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"owner": self}))
        self._http.daemon_threads = True
        self.url = self.name = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        threading.Thread(target=self._work, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()

    def _work(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(0.005):
            if time.monotonic() - last >= self.pace:  # which a test may change while we wait
                last = time.monotonic()
                with self.lock:
                    self.work()


class _Handler(BaseHTTPRequestHandler):
    owner: HttpServer

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def log_message(self, *_) -> None:
        """Tests print enough."""

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.owner.lock:
            self.owner.seen.append((method, url.path, dict(self.headers)))
            waiting = self.owner.answers.get(url.path)
            status, answer = waiting.pop(0) if waiting else self._route(url, body)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _route(self, url, body: bytes) -> tuple[int, bytes | None]:
        owner, path = self.owner, url.path
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            if path == "/system_stats":
                return _json({"system": {"comfyui_version": owner.check()}})
            if path.startswith("/object_info/"):
                return _json({path.rpartition("/")[2]: {}})
            if path == "/upload/image":
                return _json(self._upload(body))
            if path == "/prompt":
                return self._prompt(json.loads(body))
            if path == "/queue" and body:
                owner.unqueue(json.loads(body)["delete"])
                return 200, b""
            if path == "/queue":
                running, pending = owner.queue()
                return _json(
                    {"queue_running": [[0, key] for key in running], "queue_pending": [[0, key] for key in pending]}
                )
            if path.startswith("/history/"):
                key = path.rpartition("/")[2]
                entry = owner.history(key)
                return _json({key: entry} if entry else {})
            if path == "/view" and query["filename"] in owner.saved:
                return 200, owner.saved[query["filename"]]
        except ServerTrouble:
            return 502, b"bad gateway"
        return 404, b"404: Not Found"

    def _upload(self, body: bytes) -> dict:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in BytesParser().parsebytes(head + body).get_payload()
        }
        folder, name = parts["subfolder"].get_payload().strip(), parts["image"].get_filename()
        self.owner.files[f"{folder}/{name}"] = parts["image"].get_payload(decode=True)
        return {"name": name, "subfolder": folder, "type": "input"}

    def _prompt(self, body: dict) -> tuple[int, bytes]:
        answer = self.owner.validate(body["prompt"])
        try:
            given = self.owner.submit(body["prompt"], body["prompt_id"], body["client_id"])
        except Refused:
            return (400 if "error" in answer else 200), json.dumps(answer).encode()
        return _json({"prompt_id": given, "number": 1, "node_errors": {}})


def _json(value) -> tuple[int, bytes]:
    return 200, json.dumps(value).encode()


def websocket_answer(key: str) -> bytes:
    """What a server says to a websocket's opening (RFC 6455, section 1.3)."""
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()
