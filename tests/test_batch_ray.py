"""The library on a local Ray of two workers, one of which is killed while it works."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from omnialpha.batch import ray_worker
from omnialpha.batch.jobs import make_jobs
from omnialpha.batch.journal import Journal
from omnialpha.batch.ray_engine import Cluster, RayRun, task_graph
from omnialpha.batch.ray_worker import Answer, Changed, Painter, RayWorker, Tally
from omnialpha.batch.results import Folder
from omnialpha.batch.rows import from_patterns
from omnialpha.batch.runner import prepare
from omnialpha.batch.workflow import Target
from omnialpha.cli.main import main
from omnialpha.errors import OmniAlphaError

TEMPLATE = "{job}-{index:02}-{node}"
INPUTS = {"task.steps": "2", "task.guidance": "1"}
needs_ray = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ray", "pyarrow", "upath"))), reason="pip install -r requirements-ray.txt"
)


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
    assert graph.find("pixels") == Target("task", "pixels") and graph.find("look") == Target("task", "look")
    assert graph.value(graph.find("pixels")) == "keep" and graph.value(graph.find("look")) == "close"
    with pytest.raises(OmniAlphaError, match=r"'own' is no value for .*expected one of: keep, redraw"):
        graph.convert(graph.find("pixels"), "own")
    with pytest.raises(OmniAlphaError, match="no input for the image"):
        task_graph("text_to_rgba").find("image")
    with pytest.raises(OmniAlphaError):
        task_graph("no_such_task")


def test_the_engine_needs_a_task_and_takes_no_server(tmp_path, pictures, capsys):
    common = ["--image", str(pictures), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main(["batch", "no_such_task", *common]) == 2
    assert main(["batch", "matting_auto", *common, "--server", "http://x"]) == 2
    assert "--server" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cluster", "there", "workers", "share"),
    [
        (Cluster(), {"CPU": 16, "GPU": 4}, 4, {"num_gpus": 1, "num_cpus": 0}),
        (Cluster(gpus=0.5), {"CPU": 16, "GPU": 4}, 8, {"num_gpus": 0.5, "num_cpus": 0}),
        (Cluster(gpus=0.4), {"CPU": 16, "GPU": 4}, 8, {"num_gpus": 0.4, "num_cpus": 0}),  # no share spans two
        (Cluster(gpus=2), {"CPU": 16, "GPU": 5}, 2, {"num_gpus": 2, "num_cpus": 0}),
        (Cluster(workers=3), {"CPU": 16, "GPU": 4}, 3, {"num_gpus": 1, "num_cpus": 0}),
        (Cluster(device="cpu", cpus=4), {"CPU": 16, "GPU": 4}, 4, {"num_gpus": 0, "num_cpus": 4}),
        (Cluster(cpus=0.5), {"CPU": 2}, 4, {"num_gpus": 0, "num_cpus": 0.5}),
    ],
)
def test_a_pipeline_per_gpu_or_share_of_cpus(cluster, there, workers, share):
    assert cluster.pool(there) == (workers, share)


@pytest.mark.parametrize(
    ("cluster", "there", "words"),
    [
        (Cluster(device="cuda"), {"CPU": 16}, "Ray has no GPU"),
        (Cluster(gpus=1), {"CPU": 16}, "room for 0 workers"),
        (Cluster(workers=5), {"CPU": 16, "GPU": 4}, "room for 4 workers with 1 GPU each; 5 are asked for"),
        (Cluster(workers=3), {"CPU": 2}, "room for 2 workers with 1 CPU each"),
        (Cluster(gpus=1.5), {"CPU": 2, "GPU": 3}, "a part of one, or whole"),
        (Cluster(cpus=0), {"CPU": 2}, "0 CPUs"),
    ],
)
def test_what_ray_has_no_room_for(cluster, there, words):
    with pytest.raises(OmniAlphaError, match=words):
        cluster.pool(there)


def test_an_input_that_changed_or_went_is_told_apart(pictures):
    painter = Painter.__new__(Painter)  # no pipeline is needed to find out
    for path, words in ((pictures / "0.png", "changed while"), (pictures / "none.png", "is not there")):
        with pytest.raises(Changed, match=words):
            painter.paint({"image": [str(path), "0" * 64]})


class Rough:
    """In place of the pipeline's `Painter`: what a job's text says happens to it."""

    def __init__(self, checkpoint: str, device: str):
        if checkpoint == "none":
            raise OmniAlphaError("There is no such checkpoint.")

    def paint(self, values):
        raise {"changed": Changed("other"), "refused": OmniAlphaError("bad"), "failed": OSError("cut")}[values["text"]]


@pytest.mark.parametrize(("kind", "reason"), [("changed", "other"), ("refused", "bad"), ("failed", "OSError: cut")])
def test_whatever_happens_to_a_job_is_an_answer(kind, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda count: count))
    monkeypatch.setattr(ray_worker, "Painter", Rough)
    tally = SimpleNamespace(begin=SimpleNamespace(remote=Tally().begin))
    batch = {"job": ["a"], "values": [json.dumps({"text": kind})]}
    [first], [again] = (RayWorker("micro", "cpu", tally)(batch)["answer"] for _ in range(2))
    assert (first.job, first.kind, first.reason) == ("a", kind, reason)
    assert again.kind == "crashed"  # Ray gives a job again only when its process died
    [broken] = RayWorker("none", "cpu", tally)(batch)["answer"]
    assert (broken.kind, broken.reason) == (ray_worker.BROKEN, "There is no such checkpoint.")


def test_layers_that_do_not_open_are_made_again(tmp_path, pictures):
    graph, events = task_graph("matting_auto"), []
    [job] = make_jobs(graph, list(from_patterns({"image": str(pictures / "0.png")})), TEMPLATE)
    journal = Journal(tmp_path / "own/journal.sqlite3")
    journal.add([job])
    folder = Folder(tmp_path / "out", TEMPLATE)
    run = RayRun(Cluster(), graph, [job], journal=journal, folder=folder, say=events.append)
    run.ended(job, Answer(job.id, "ray a", [("foreground", b"cut")], 1.0))
    assert (events[-1]["event"], events[-1]["kind"], run.board.unfinished) == ("again", "damaged", {job.id})
    run.ended(job, Answer(job.id, "ray b", [("foreground", (pictures / "0.png").read_bytes())], 1.0))
    assert (events[-1]["event"], events[-1]["server"], run.board.unfinished) == ("done", "ray b", set())
    journal.close()


class Trial:
    """A run over pictures; `kill` ends the process that gave an answer, which is at its next job by then, or between
    two: so the one that gave the next answer as well, until a job was hit."""

    def __init__(self, pictures: str, root, own: Path, kill: bool = False):
        graph, self.kill, self.events = task_graph("decomposition_auto"), kill, []
        self.jobs = make_jobs(graph, list(from_patterns({"image": pictures, **INPUTS, "task.steps": "40"})), TEMPLATE)
        journal, folder = Journal(own / "journal.sqlite3"), Folder(root, TEMPLATE, own)
        waiting = prepare(self.jobs, journal, folder).jobs
        cluster = Cluster(workers=2, cpus=0.5, device="cpu")
        self.end = RayRun(cluster, graph, waiting, journal=journal, folder=folder, say=self.say).run()
        self.rows = journal.table([job.id for job in self.jobs])
        self.left = prepare(self.jobs, journal, folder).jobs
        self.parts = list(folder.parts.glob("*"))
        journal.close()

    def say(self, event) -> None:
        self.events.append(event)
        self.kill = self.kill and event.get("kind") != "crashed"
        if self.kill and event["event"] == "done":
            with contextlib.suppress(ProcessLookupError):  # its last answers outlive it
                os.kill(int(event["server"].rpartition(":")[2]), signal.SIGKILL)


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path, pictures, monkeypatch):
    from upath import UPath

    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's 15 lets workers starve on a busy machine
    calm = Trial(str(pictures), tmp_path / "calm", tmp_path / "calm-own")
    killed = Trial(f"file://{pictures}/*.png", UPath(f"file://{tmp_path}/killed"), tmp_path / "killed-own", kill=True)
    for trial in (calm, killed):
        assert (trial.end, trial.left, trial.parts) == ("finished", [], [])
        assert [row["state"] for row in trial.rows] == ["done"] * 6 + ["set aside"]
        assert "not a picture" in trial.rows[6]["reason"]
        assert sorted(event["job"] for event in trial.events if event["event"] == "done") == list("012345")
    assert [any(event.get("kind") == "crashed" for event in trial.events) for trial in (calm, killed)] == [False, True]
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*")} for name in ("calm", "killed")]
    assert len(files[0]) == 12 and files[0] == files[1]
    with Image.open(tmp_path / "killed/0-02-object.png") as image:
        assert image.mode == "RGBA" and json.loads(image.info["omnialpha"])["image"] == "0.png"
