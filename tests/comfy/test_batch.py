"""The batch client and a real ComfyUI: each thing that ComfyUI does and a client has to know."""

import json
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnialpha.batch.history import Success, read_entry
from omnialpha.batch.listener import Listener
from omnialpha.batch.server import Refused, Server
from omnialpha.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def client(comfy) -> Server:
    return Server(comfy.url)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two pictures and a file that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, colour in (("red", (200, 10, 10)), ("blue", (10, 10, 200))):
        Image.new("RGB", (40, 32), colour).save(folder / f"{name}.png")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    return folder


def copying(**nodes) -> dict:
    """A graph that loads a picture, turns it over and saves it."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "batch/copy"}},
        **nodes,
    }


def an_id() -> str:
    """As the client makes them: newer servers take nothing but UUIDs."""
    return str(uuid.uuid4())


def ended(client: Server, prompt_id: str) -> dict:
    """A graph's history entry, once it is neither running nor waiting."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        queue = client.queue()
        entry = None if prompt_id in queue.running | queue.pending else client.history(prompt_id)
        if entry:
            return entry
        time.sleep(0.05)
    raise AssertionError("it never ended")


def run(comfy, workflow: Path, pictures: Path, out: Path, *more: str) -> int:
    return main(
        [
            "batch",
            str(workflow),
            "--image",
            f"{pictures}/*.png",
            "--server",
            comfy.url,
            "--out",
            str(out),
            "--quiet",
            *more,
        ]
    )


def test_pictures_through_our_own_workflow(comfy, pictures, tmp_path):
    out = tmp_path / "out"
    fast = ["--input", "Cut the object out.steps=1", "--input", "Cut the object out.guidance=1"]
    assert run(comfy, ROOT / "workflows/api/omnialpha_matting.json", pictures, out, *fast, "--previews") == 3
    report = json.loads((out / "_batch/report.json").read_text())
    states = {row["name"]: (row["state"], len(row["results"])) for row in report["list"]}
    assert states == {"red": ("done", 3), "blue": ("done", 3), "torn": ("set aside", 0)}
    assert "LoadImage" in report["list"][2]["reason"]
    with Image.open(out / "red-02.png") as image:  # of node 6, which saves; 5 and 8 preview
        assert (image.mode, image.size) == ("RGBA", (40, 32)) and json.loads(image.info["prompt"])


def test_a_remembered_result_whose_file_is_gone_is_made_again(comfy, pictures, tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(copying()))
    (pictures / "torn.png").unlink()
    (pictures / "blue.png").unlink()
    assert run(comfy, tmp_path / "w.json", pictures, tmp_path / "one") == 0
    for path in (comfy.base / "output/batch").glob("copy*"):
        path.unlink()
    assert run(comfy, tmp_path / "w.json", pictures, tmp_path / "two") == 0
    with Image.open(tmp_path / "one/red-01.png") as one, Image.open(tmp_path / "two/red-01.png") as two:
        assert np.array_equal(np.asarray(one), np.asarray(two))
    report = json.loads((tmp_path / "two/_batch/report.json").read_text())
    assert report["list"][0]["attempts"] == 2, "ComfyUI answered from its cache first"


def test_our_id_is_kept_and_the_websocket_tells_of_the_end(comfy, client, photo):
    woken, mine = threading.Event(), an_id()
    listener = Listener(Server(comfy.url), "test-client", woken.set, lambda: None)
    listener.start()
    time.sleep(1)  # it has no word for being connected
    assert client.submit(copying(), mine, "test-client") == mine
    assert isinstance(read_entry(ended(client, mine)), Success)
    assert woken.wait(10)
    listener.stop()


def test_400_and_200_with_node_errors_are_refusals(client, photo):
    broken = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}}
    missing = {"class_type": "LoadImage", "inputs": {"image": "not there.png"}}
    with pytest.raises(Refused, match=r"LoadImage 8: .*not there\.png"):
        client.submit({"8": missing, "9": broken}, an_id(), "me")
    with pytest.raises(Refused, match=r"LoadImage 8: .*not there\.png"):  # here ComfyUI answers 200
        client.submit(copying(**{"8": missing, "9": broken}), an_id(), "me")
    with pytest.raises(Refused, match="NoSuchNode"):
        client.submit(copying(**{"7": {"class_type": "NoSuchNode", "inputs": {}}}), an_id(), "me")
    assert client.lacking(["LoadImage", "NoSuchNode"]) == ["NoSuchNode"]


def test_uploads_are_called_what_the_server_says(client, comfy, tmp_path):
    for content in (b"one", b"two", b"one"):
        (tmp_path / "f").write_bytes(content)
        name = client.upload(tmp_path / "f", "same.png")
        assert (comfy.base / "input" / name).read_bytes() == content
    assert name == "omnialpha-batch/same.png"
    assert client.upload(tmp_path / "f", "same.png") == name


def test_a_file_over_the_limit_is_refused_by_name(client, tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(Refused, match=r"huge\.png \(105\.9 MB\) is larger than") as caught:
        client.upload(tmp_path / "huge.png", "huge.png")
    assert caught.value.kind == "too large"


def test_an_interrupt_and_a_deleted_job(comfy, client, graph):
    model, clip, vae, *_ = graph.add("OmniAlphaLoadCheckpoint", checkpoint="micro")
    layers = graph.add(
        "OmniAlphaTask",
        model=model,
        clip=clip,
        vae=vae,
        task="text_to_rgba",
        text="a cup",
        instruction="",
        seed=3,
        steps=1000,
        guidance=1.0,
        sampler="euler",
        fit="scale",
    )[0]
    graph.add("OmniAlphaSaveLayers", layers=layers, filename_prefix="batch/long")
    long, deleted = client.submit(graph.prompt, an_id(), "me"), client.submit(copying(), an_id(), "me")
    deadline = time.monotonic() + 60
    while long not in client.queue().running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert deleted in client.queue().pending
    client.unqueue([deleted])
    assert deleted not in client.queue().pending and client.history(deleted) is None
    comfy.post("/interrupt", {"prompt_id": long})
    assert read_entry(ended(client, long)).kind == "interrupted"


def test_a_cycle_of_links_is_refused(client):
    cycle = {
        "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "cycle"}},
    }
    with pytest.raises(Refused, match=r"cycle|failed validation"):  # older servers do not say why
        client.submit(cycle, an_id(), "me")
