"""Inputs and results at addresses: listed, told apart by version, written without overwriting."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("upath", reason="pip install -r requirements-ray.txt")

from fsspec.implementations.local import LocalFileSystem
from upath import UPath

from omnialpha.batch import addresses
from omnialpha.batch.jobs import File, make_jobs, version
from omnialpha.batch.journal import Journal, Result
from omnialpha.batch.ray_engine import task_graph
from omnialpha.batch.results import Folder
from omnialpha.batch.rows import from_manifest, from_patterns
from omnialpha.cli.main import main
from omnialpha.errors import OmniAlphaError
from omnialpha.files.writing import DiskError

TEMPLATE = "{folder}/{job}-{index:02}"


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path):
    """An empty remote folder: in memory, or on this disk by its address."""
    root = UPath(f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/bucket")
    root.mkdir(parents=True)
    yield root
    root.fs.rm(root.path, recursive=True)


def fill(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def plan(image: str, **more: str):
    return make_jobs(task_graph("decomposition_mask"), list(from_patterns({"image": image, **more})), TEMPLATE)


def test_a_pattern_at_an_address_means_what_it_means_on_a_disk(bucket):
    fill(bucket, "in/b.png", "in/a.png", "in/sub/a.png", "in/1.txt", "in/.hidden.png", "masks/a.png", "masks/b.png")
    jobs = plan(f"{bucket}/in/*.png", guide=f"{bucket}/masks/{{stem}}.png")
    assert [(job.name, job.folder) for job in jobs] == [("a", ""), ("b", "")]
    assert [str(file.path) for file in jobs[1].files] == [f"{bucket}/in/b.png", f"{bucket}/masks/b.png"]
    assert [job.name for job in plan(f"{bucket}/in")] == ["a", "b"]
    assert [(job.name, job.folder) for job in plan(f"{bucket}/in/**/a.png")] == [("a", ""), ("a", "sub")]
    assert [job.name for job in plan(f"{bucket}/in/b.png")] == ["b"]
    with pytest.raises(OmniAlphaError, match="No file matches"):
        plan(f"{bucket}/in/*.webp")
    with pytest.raises(OmniAlphaError, match="cannot be read"):
        plan(f"{bucket}/in/b.png", guide=f"{bucket}/masks/none.png")


def test_a_table_may_name_addresses(bucket, tmp_path):
    fill(bucket, "a.png")
    (tmp_path / "jobs.csv").write_text(f"image,task.seed\n{bucket}/a.png,3\n")
    [job] = make_jobs(task_graph("matting_auto"), from_manifest(tmp_path / "jobs.csv"), TEMPLATE)
    assert job.name == "a" and job.files == [File(bucket / "a.png", version(bucket / "a.png"))]


def test_a_file_that_changes_is_another_version(bucket):
    fill(bucket, "a.png")
    first = version(bucket / "a.png")
    assert first == version(bucket / "a.png")
    (bucket / "a.png").write_bytes(b"something else")
    assert first != version(bucket / "a.png")


def test_without_a_sign_in_the_listing_the_content_is_read(bucket, monkeypatch):
    monkeypatch.setattr(addresses, "SIGNS", ())
    fill(bucket, "a.png", "b.png")
    first = version(bucket / "a.png")
    (bucket / "a.png").write_bytes(b"a.pnG")  # as long
    (bucket / "b.png").write_bytes(b"a.png")
    assert version(bucket / "b.png") == first != version(bucket / "a.png")


def test_writing_never_overwrites(bucket):
    path = bucket / "new/sub/a.png"
    assert addresses.put(b"whole", path) and path.read_bytes() == b"whole"
    for taken in (b"whole", b"other", b"longer than whole"):
        path.write_bytes(taken)
        assert not addresses.put(b"whole", path) and path.read_bytes() == taken
    for cut in (b"", b"who"):  # left by a run stopped while writing
        path.write_bytes(cut)
        assert addresses.put(b"whole", path) and path.read_bytes() == b"whole"
    assert not addresses.put(b"whole", bucket / "new")


def picture(colour) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (8, 8), colour).save(data, "PNG")
    return data.getvalue()


def fetched(jobs, folder: Folder, journal: Journal) -> None:
    """As after a job's layers came in: parts on this disk, names claimed."""
    from omnialpha.batch.jobs import sha256

    for job in jobs:
        part = folder.part(job.id, 1)
        part.write_bytes(picture((job.number, 0, 0, 9)))
        result = Result(1, folder.wanted(job, 1, "node", "x.png"), sha256(part), part.stat().st_size, "node")
        journal.send(job.id, "ray x", job.id)
        journal.fetched(job.id, job.id, "ray x", folder.claim([result], journal), 1.0)


def test_results_are_published_at_an_address_once(bucket, tmp_path):
    fill(bucket, "in/a.png", "in/b.png", "out/a-01.png")  # somebody else's file has the first name
    jobs = plan(f"{bucket}/in/*.png")
    journal, folder = Journal(tmp_path / "own/journal.sqlite3"), Folder(bucket / "out", TEMPLATE, tmp_path / "own")
    journal.add(jobs)
    fetched(jobs, folder, journal)
    for _ in range(2):  # stopped after it and done again
        assert all(folder.publish(job.id, journal) for job in jobs)
        names = sorted(path.name for path in (bucket / "out").iterdir())
        assert names == ["a-01-2.png", "a-01.png", "b-01.png"]
    assert (bucket / "out/a-01.png").read_bytes() == b"out/a-01.png"
    with (bucket / "out/b-01.png").open("rb") as file, Image.open(file) as image:
        assert image.getpixel((0, 0)) == (2, 0, 0, 9)
    assert not folder.missing(journal.results(jobs[1].id)) and not list(folder.parts.iterdir())
    (bucket / "out/b-01.png").unlink()
    assert folder.missing(journal.results(jobs[1].id))
    journal.close()


def test_a_filesystem_that_refuses_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    bucket = UPath(f"file://{tmp_path}/bucket")
    fill(bucket, "in/a.png")
    jobs = plan(f"{bucket}/in/a.png")
    journal, folder = Journal(tmp_path / "own/journal.sqlite3"), Folder(bucket / "out", TEMPLATE, tmp_path / "own")
    journal.add(jobs)
    fetched(jobs, folder, journal)

    def refuse(*args, **kwargs):
        raise RuntimeError("quota exceeded")  # as a client's own kind of error

    with monkeypatch.context() as broken:
        broken.setattr(LocalFileSystem, "pipe_file", refuse)
        with pytest.raises(DiskError, match="quota exceeded"):
            folder.publish(jobs[0].id, journal)
    assert folder.publish(jobs[0].id, journal) and (bucket / "out/a-01.png").exists()
    journal.close()


@pytest.mark.parametrize(("address", "words"), [("nope://a/b", "nope.*Known are .*memory"), ("sftp://h/x", "paramiko")])
def test_an_address_nothing_reaches_says_what_to_install(address, words, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "paramiko", None)  # as where it is not installed
    with pytest.raises(OmniAlphaError, match=words):
        addresses.locate(address)


def test_paths_of_this_machine_are_no_addresses(tmp_path):
    assert not any(map(addresses.is_address, (tmp_path, "a/b.png", "C:\\a.png", "~/a", 3)))
    assert isinstance(addresses.locate("~/a"), Path)


def test_the_command_asks_where_the_journal_goes(bucket, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    fill(bucket, "in/a.png")
    common = ["batch", "matting_auto", "--image", f"{bucket}/in/*.png", "--out", f"{bucket}/out"]
    assert main([*common, "--engine", "ray"]) == 2
    assert "--journal FOLDER" in capsys.readouterr().err
    assert main([*common, "--engine", "ray", "--journal", f"{bucket}/own"]) == 2
    assert "folder of this machine" in capsys.readouterr().err
    assert main([*common, "--engine", "ray", "--dry-run"]) == 0
    assert f"{bucket}/in/a.png" in capsys.readouterr().out
    assert main(["batch", "workflows/api/omnialpha_matting.json", *common[2:]]) == 2
    assert "only --engine ray writes to addresses" in capsys.readouterr().err
    assert not (bucket / "out").exists()
