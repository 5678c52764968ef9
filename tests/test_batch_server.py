"""The client's requests, and what it makes of each answer."""

from __future__ import annotations

import json
import re
import socket
import threading

import pytest
from pretend import WORKFLOW, picture
from pretend_http import HttpServer, websocket_answer

from omnialpha.batch.history import Failure, Output, Success, read_entry, refusal
from omnialpha.batch.listener import Listener, is_end
from omnialpha.batch.results import Damaged, check
from omnialpha.batch.server import Refused, Server, ServerClosed, ServerTrouble
from omnialpha.batch.urls import clean_url
from omnialpha.errors import OmniAlphaError


@pytest.fixture
def http():
    with HttpServer(pace=60) as server:
        yield server


@pytest.fixture
def client(http) -> Server:
    return Server(http.url, {"Authorization": "Bearer abc"})


def test_addresses():
    assert clean_url("localhost:8188/") == "http://localhost:8188"
    assert clean_url("https://host/comfy/") == "https://host/comfy"
    for bad in ("ftp://host", "http://", "http://host:nix"):
        with pytest.raises(OmniAlphaError, match="no address"):
            clean_url(bad)
    assert Server("https://me:secret@host/x").name == "https://host/x", "no password in messages and journals"


def test_headers_go_with_every_request(http, client):
    client.check()
    client.queue()
    assert [headers["Authorization"] for _, _, headers in http.seen] == ["Bearer abc"] * 2


def test_an_upload_is_called_what_the_server_calls_it(http, client, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"\0\r\n binary \xff")
    assert client.upload(file, "abc.png") == "omnialpha-batch/abc.png"
    assert http.files == {"omnialpha-batch/abc.png": b"\0\r\n binary \xff"}
    http.answers["/upload/image"] = [(200, b'{"name": "abc (1).png", "subfolder": "", "type": "input"}')]
    assert client.upload(file, "abc.png") == "abc (1).png"


def test_a_server_that_hangs_up_during_an_upload_and_is_well_otherwise(http, client, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x" * 1_500_000)
    http.answers["/upload/image"] = [(0, None), (0, None)]
    with pytest.raises(ServerTrouble, match=r"a\.png \(1\.5 MB\), which may be more than it takes") as caught:
        client.upload(tmp_path / "a.png", "a.png")
    assert caught.value.request, "it counts against the job"
    http.answers["/system_stats"] = [(0, None)]
    with pytest.raises(ServerTrouble) as caught:
        client.upload(tmp_path / "a.png", "a.png")
    assert not caught.value.request, "the server is gone altogether"


def test_a_graph_is_queued_under_our_id(http, client):
    http.files["some.png"] = b"1"
    assert client.submit(WORKFLOW, "my-id", "me") == "my-id"
    assert client.queue().pending == {"my-id"}
    assert client.history("my-id") is None


def test_too_large_names_the_file_and_the_limit(http, client, tmp_path):
    file = tmp_path / "huge.png"
    file.write_bytes(b"x" * 2_000_000)
    http.answers["/features"] = [(200, b'{"max_upload_size": 1048576}')]
    with pytest.raises(Refused, match=r"huge\.png \(2\.0 MB\) is larger than .* takes: 1\.0 MB"):
        Server(http.url).upload(file, "huge.png")
    assert not http.files, "it was not even sent"
    http.answers["/upload/image"] = [(413, b"Maximum request body size exceeded")]
    with pytest.raises(Refused, match=r"huge\.png \(2\.0 MB\).*--max-upload-size") as caught:
        client.upload(file, "huge.png")
    assert caught.value.kind == "too large"


ERRORS = {"4": {"class_type": "Task", "errors": [{"message": "Value not in list", "details": "task: 'x' not in []"}]}}


def test_400_carries_the_reasons(http, client):
    http.answers["/prompt"] = [
        (400, json.dumps({"error": {"message": "failed"}, "node_errors": ERRORS}).encode()),
        (400, b'{"error": {"message": "Node X does not exist.", "details": "#3"}}'),
        (400, b"nonsense"),
    ]
    for words in ("Task 4: Value not in list", "Node X does not exist. #3", "answered 400"):
        with pytest.raises(Refused, match=re.escape(words)):
            client.submit(WORKFLOW, "i", "me")


def test_200_with_node_errors_is_a_refusal_and_is_taken_back(http, client):
    answer = {"prompt_id": "i", "number": 1, "node_errors": ERRORS}
    http.answers["/prompt"] = [(200, json.dumps(answer).encode())]
    with pytest.raises(Refused, match="Value not in list"):
        client.submit(WORKFLOW, "i", "me")
    assert http.unqueued == ["i"]


@pytest.mark.parametrize(("status", "own"), [(500, True), (502, False), (503, False), (429, False)])
def test_trouble(http, client, status, own):
    http.answers["/queue"] = [(status, b"oops")]
    with pytest.raises(ServerTrouble, match=str(status)) as caught:
        client.queue()
    assert caught.value.request is own


def test_a_connection_that_breaks_or_is_refused(http, client):
    http.answers["/queue"] = [(0, None)]
    with pytest.raises(ServerTrouble, match="does not answer") as caught:
        client.queue()
    assert not caught.value.request
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(ServerTrouble, match="refused"):
            Server(f"http://127.0.0.1:{probe.getsockname()[1]}").check()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_no_entry_and_no_comfyui(http, client, status):
    http.answers["/system_stats"] = [(status, b"no"), (200, b"<html>Log in</html>"), (200, b"[]")]
    for _ in range(3):
        with pytest.raises(ServerClosed):
            client.check()


def test_answers_that_make_no_sense(http, client):
    http.answers["/queue"] = [(200, b"{}")]
    http.answers["/prompt"] = [(200, b"{}")]
    for call in (client.queue, lambda: client.submit(WORKFLOW, "i", "me")):
        with pytest.raises(ServerTrouble):
            call()


def test_a_download_that_comes_short_is_noticed(http, client, tmp_path):
    http.saved["a.png"] = picture("a")
    client.download(Output("3", "a.png"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == picture("a")
    with pytest.raises(Damaged, match="404"):
        client.download(Output("3", "b.png"), tmp_path / "b")
    client.download(Output("3", "text.txt", text="héllo"), tmp_path / "t")
    assert (tmp_path / "t").read_text(encoding="utf-8") == "héllo"


def test_what_does_not_open_is_damaged(tmp_path):
    part = tmp_path / "part"
    for content, name in ((b"", "a.bin"), (picture("a")[:50], "a.png"), (b"<html>", "a.webp"), (b"{", "a.json")):
        part.write_bytes(content)
        with pytest.raises(Damaged, match=re.escape(name)):
            check(part, name)
    for content, name in ((picture("a"), "a.PNG"), (b"x", "a.mp4"), (b"[]", "a.json")):
        part.write_bytes(content)
        check(part, name)


def entry(*messages, status="success", outputs=None) -> dict:
    return {"outputs": outputs or {}, "status": {"status_str": status, "messages": list(messages)}}


FILES = {
    "9": {"images": [{"filename": "a.png", "subfolder": "x", "type": "output"}]},
    "8": {"images": [{"filename": "p.png", "subfolder": "", "type": "temp"}], "animated": [False]},
    "7": {"text": ["a caption"]},
}


def test_history_entries():
    error = ["execution_error", {"node_id": "5", "node_type": "X", "exception_type": "a.B", "exception_message": "why"}]
    stopped = ["execution_interrupted", {"node_id": "5", "node_type": "X"}]
    assert read_entry(entry(error, status="error")) == Failure("failed", "B: why (node 5, X)")
    assert read_entry(entry(error, outputs=FILES)).kind == "failed", "a cycle of links ends as success"
    assert read_entry(entry(stopped, status="error")).kind == "interrupted"
    assert read_entry(entry(status="error")).kind == "failed"
    assert read_entry(entry()).kind == "no results"
    memory = ["execution_error", {"exception_type": "torch.OutOfMemoryError", "exception_message": "Allocation"}]
    assert read_entry(entry(memory, status="error")).servers_fault


def test_saved_files_come_first_and_previews_when_asked_for():
    assert read_entry(entry(outputs=FILES)) == Success((Output("9", "a.png", "x", "output"),))
    assert len(read_entry(entry(outputs=FILES), previews=True).outputs) == 3
    only = {key: FILES[key] for key in "87"}
    assert [output.node for output in read_entry(entry(outputs=only)).outputs] == ["7", "8"]


def test_results_are_numbered_by_node_in_whatever_order_they_ran():
    def names(*order: str) -> list[str]:
        outputs = {key: {"images": [{"filename": f"{key}.png", "type": "output"}]} for key in order}
        return [output.node for output in read_entry(entry(outputs=outputs)).outputs]

    assert names("10", "9", "57:3", "57:12") == names("57:12", "10", "57:3", "9") == ["9", "10", "57:3", "57:12"]


def test_refusals_in_words():
    assert refusal({"prompt_id": "i", "node_errors": {}}) is None
    assert refusal({"error": "plain", "node_errors": {}}) == "plain"


def test_which_messages_mean_that_a_job_ended():
    assert is_end('{"type": "executing", "data": {"node": null}}')
    assert is_end(b'{"type": "execution_error", "data": {}}')
    for other in ('{"type": "executing", "data": {"node": "4"}}', '{"type": "status"}', "[]", "no json", b"\xff"):
        assert not is_end(other)


def test_the_listener_says_when_a_job_ended_and_when_the_line_broke():
    woken, dropped = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://me:pw@127.0.0.1:{server.getsockname()[1]}/comfy"
        listener = Listener(Server(url, {"X-Token": "t"}), "my-client", woken.set, dropped.set)
        listener.start()
        connection, _ = server.accept()
        request = connection.recv(4096).decode()
        connection.sendall(websocket_answer(re.search(r"Sec-WebSocket-Key: (\S+)", request)[1]))
        message = b'{"type": "execution_success", "data": {}}'
        connection.sendall(b"\x82\x02\x00\x00" + bytes([0x81, len(message)]) + message)  # a preview, then the text
        assert woken.wait(20) and not dropped.is_set()
        connection.close()
        assert dropped.wait(20)
        listener.stop()
    assert request.startswith("GET /comfy/ws?clientId=my-client") and "X-Token: t" in request
    assert "Authorization: Basic bWU6cHc=" in request
