"""The library on a local Ray of two actors, one of which is killed while it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from omnialpha.batch.jobs import from_patterns, make_jobs
from omnialpha.batch.journal import Journal
from omnialpha.batch.ray_engine import Cluster, RayRun, task_graph
from omnialpha.batch.results import Folder
from omnialpha.batch.runner import prepare
from omnialpha.batch.workflow import Target
from omnialpha.cli import main
from omnialpha.errors import OmniAlphaError

TEMPLATE = "{job}-{index:02}-{node}"


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 90, 200)).save(folder / f"{number}.png")
    (folder / "6.png").write_bytes(b"no picture")
    return folder


def test_a_task_as_a_graph():
    graph = task_graph("decomposition_mask")
    assert (graph.find("image"), graph.find("guide")) == (Target("image", "image"), Target("guide", "image"))
    assert graph.find("text") == Target("task", "text") and graph.find("task.seed") == Target("task", "seed")
    with pytest.raises(OmniAlphaError, match="no input for the image"):
        task_graph("text_to_rgba").find("image")
    with pytest.raises(OmniAlphaError):
        task_graph("no_such_task")


def test_the_engine_needs_a_task_and_takes_no_server(tmp_path, pictures, capsys):
    common = ["--image", str(pictures), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main(["batch", "no_such_task", *common]) == 2
    assert main(["batch", "matting_auto", *common, "--server", "http://x"]) == 2
    assert "--server" in capsys.readouterr().err


class Trial:
    """A run over the pictures; `kill` ends an actor's process as soon as both are at work."""

    def __init__(self, pictures: Path, out: Path, kill: bool):
        graph = task_graph("decomposition_auto")
        rows = list(from_patterns({"image": str(pictures), "task.steps": "2", "task.guidance": "1"}))
        self.jobs, self.kill, self.events = make_jobs(graph, rows, TEMPLATE), kill, []
        journal, folder = Journal(out / "_batch/journal.sqlite3"), Folder(out, TEMPLATE)
        waiting = prepare(self.jobs, journal, folder).jobs
        self.run = RayRun(Cluster(workers=2, device="cpu"), graph, waiting, journal, folder, self.say)
        self.end = self.run.run()
        self.rows = journal.table([job.id for job in self.jobs])
        self.left = prepare(self.jobs, journal, folder).jobs
        self.files = {path.name: path.read_bytes() for path in out.glob("*.png")}
        journal.close()

    def say(self, event) -> None:
        import ray

        self.events.append(event)
        if self.kill and [one["event"] for one in self.events].count("sent") == 3:
            self.kill = False
            ray.kill(self.run.actors[event["server"]], no_restart=False)


@pytest.mark.slow
def test_an_actor_killed_in_the_middle_costs_nothing(tmp_path, pictures):
    pytest.importorskip("ray", reason="pip install -r requirements-ray.txt")
    calm, killed = (Trial(pictures, tmp_path / str(kill), kill) for kill in (False, True))
    for trial in (calm, killed):
        assert (trial.end, trial.left) == ("finished", [])
        assert [row["state"] for row in trial.rows] == ["done"] * 6 + ["set aside"]
        assert "not a picture" in trial.rows[6]["reason"]
    assert [any(event.get("kind") == "crashed" for event in trial.events) for trial in (calm, killed)] == [False, True]
    assert len(calm.files) == 12 and calm.files == killed.files
    with Image.open(tmp_path / "False/0-02-foreground.png") as image:
        assert image.mode == "RGBA" and json.loads(image.info["omnialpha"])["image"] == "0.png"
