"""A server that sends us on to another one gets nothing taken there: no headers, no cookies, no files, no graphs."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from omnialpha.batch.history import Output
from omnialpha.batch.listener import Listener
from omnialpha.batch.server import Server, ServerClosed
from omnialpha.batch.urls import origin

SECRETS = {"X-Api-Key": "secret", "Authorization": "Bearer secret", "Cookie": "session=secret"}
OPERATIONS = {
    "check": lambda server, path: server.check(),
    "nodes": lambda server, path: server.lacking(["LoadImage"]),
    "upload": lambda server, path: server.upload(path, "a.png"),
    "submit": lambda server, path: server.submit({}, "id", "me"),
    "queue": lambda server, path: server.queue(),
    "history": lambda server, path: server.history("id"),
    "unqueue": lambda server, path: server.unqueue(["id"]),
    "download": lambda server, path: server.download(Output("3", "a.png"), path.with_name("part")),
}


class Recorder(ThreadingHTTPServer):
    """A server that answers every request with `answer(path)`: status, headers, JSON; `seen` holds what it was sent."""

    def __init__(self, answer):
        recorder, self.seen = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                recorder.seen.append((self.path, dict(self.headers), body))
                status, headers, data = answer(self.path)
                text = json.dumps(data).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *_):
                """Tests print enough."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *exc_info):
        self.shutdown()
        super().__exit__(*exc_info)


@pytest.fixture
def other():
    with Recorder(lambda path: (200, {}, {"system": {"comfyui_version": "0.8.0"}})) as server:
        yield server


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"a picture of one's own")
    return path


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_goes_to_another_server(other, file, operation, status):
    answer = lambda path: (status, {"Location": other.url + path, "Set-Cookie": "token=secret; Path=/"}, {})  # noqa: E731
    with Recorder(answer) as first, pytest.raises(ServerClosed, match=f"{status} and sends us on to another server"):
        OPERATIONS[operation](Server(first.url, SECRETS), file)
    assert not other.seen and first.seen


@pytest.mark.parametrize(
    "spelling",
    [
        "//127.0.0.1:{port}/x",
        "http://me:pw@127.0.0.1:{port}/",
        "https://127.0.0.1:{own}/",
        "http://localhost:{own}/",
        "http://[bad",
        "ftp://127.0.0.1/",
    ],
)
def test_another_server_however_it_is_spelt(other, spelling):
    ports = {"port": other.server_address[1]}
    with Recorder(lambda path: (302, {"Location": spelling.format(**ports)}, {})) as first:
        ports["own"] = first.server_address[1]
        with pytest.raises(ServerClosed, match="another server") as caught:
            Server(first.url, SECRETS).check()
    assert not other.seen and "pw" not in str(caught.value)


def test_a_server_that_says_elsewhere_how_much_it_takes(other):
    with Recorder(lambda path: (302, {"Location": other.url + path}, {})) as first:
        assert Server(first.url, SECRETS).largest_upload() is None
    assert not other.seen and first.seen


def test_a_server_may_send_us_on_within_itself(other):
    def moved(path: str) -> tuple:
        if path == "/system_stats":
            return 307, {"Location": "/api/system_stats"}, {}
        return 200, {}, {"system": {"comfyui_version": "0.9.9"}}

    with Recorder(moved) as first:
        assert Server(first.url, SECRETS).check() == "0.9.9"
        assert [(path, headers["X-Api-Key"]) for path, headers, _ in first.seen] == [
            ("/system_stats", "secret"),
            ("/api/system_stats", "secret"),
        ]


def test_the_websocket_goes_to_no_other_server():
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        listener = Listener(
            Server(f"http://127.0.0.1:{first.getsockname()[1]}", SECRETS), "me", lambda: None, lambda: None
        )
        listener.start()
        connection, _ = first.accept()
        assert b"X-Api-Key: secret" in connection.recv(4096)
        target = f"ws://127.0.0.1:{second.getsockname()[1]}/ws"
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        second.settimeout(1)
        with pytest.raises(TimeoutError):
            second.accept()
        connection.close()
        listener.stop()


def test_origins():
    assert origin("http://host") == origin("http://HOST:80/a/b?c") != origin("https://host:80")
    assert origin("https://host/") == origin("https://host:443") != origin("https://host:8443")
