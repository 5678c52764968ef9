"""The whole command, in its own process, against a pretended server that speaks HTTP."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from batching import inputs
from pretend import BAD, WORKFLOW
from pretend_http import HttpServer

from omnialpha.batch import worker
from omnialpha.cli.main import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def http():
    with HttpServer() as server:
        yield server


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Without the pauses that real servers need; commands in a process of their own have them."""
    monkeypatch.setattr(worker, "Limits", partial(worker.Limits, poll=0.02, settle=0.1, backoff=0.02))


@pytest.fixture
def batch(tmp_path, http):
    """Arguments of a batch over four pictures, the third of which is bad; more can be added."""
    inputs(tmp_path / "in", [b"1", b"2", BAD, b"4"])
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    return lambda *more: [
        "batch",
        str(tmp_path / "w.json"),
        "--image",
        f"{tmp_path}/in/*.png",
        "--server",
        http.url,
        "--out",
        str(tmp_path / "out"),
        *more,
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "omnialpha", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").glob("*.png"))


EXPECTED = [f"{letter}-{index:02}.png" for letter in "abd" for index in (1, 2)]


def good_ones(http: HttpServer) -> int:
    """How many good pictures the server worked on; none twice."""
    good = [name for name in http.executed if http.files[name] != BAD]
    assert len(good) == len(set(good))
    return len(good)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_from_pictures_to_files_reports_and_exit_code(batch, tmp_path, capsys):
    assert main(batch()) == 3
    printed = capsys.readouterr()
    assert "3 of 4 jobs done, 1 set aside, 0 unfinished" in printed.out
    assert "c: set aside. UnidentifiedImageError: cannot identify" in printed.err and "4/4" in printed.err
    assert results(tmp_path) == EXPECTED
    own = tmp_path / "out/_batch"
    report = json.loads((own / "report.json").read_text())
    assert (report["done"], report["set aside"], report["end"], report["reasons"]) == (3, 1, "finished", {"failed": 1})
    assert report["list"][0]["results"] == ["a-01.png", "a-02.png"]
    rows = list(csv.DictReader((own / "report.csv").open()))
    assert [row["state"] for row in rows] == ["done", "done", "set aside", "done"]
    assert "| c | failed | UnidentifiedImageError" in (own / "report.md").read_text()


def test_again_runs_nothing_and_says_so(batch, tmp_path, http, capsys):
    main(batch("--quiet"))
    http.submitted.clear()
    assert main(batch()) == 3
    assert "4 jobs, 0 to run; 3 done earlier; 1 set aside earlier (--retry-failed runs them)" in capsys.readouterr().err
    assert not http.submitted
    assert main(batch("--retry-failed", "--quiet")) == 3
    assert len(http.submitted) == 2
    (tmp_path / "in/c.png").unlink()
    assert main(batch("--quiet")) == 0


def test_quiet_and_json_lines(batch, capsys):
    main(batch("--quiet"))
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and printed.err == ""
    main(batch("--json-lines", "--retry-failed"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["server up", "sent", "again", "sent", "set aside", "end"]


def test_a_dry_run_needs_no_server_and_leaves_nothing(batch, tmp_path, http, capsys):
    assert main([*batch("--dry-run"), "--input", "Cut.strength=5"]) == 0
    out = capsys.readouterr().out
    assert "4 jobs of" in out and "a -> a-01.png" in out and "Cut.strength = 5" in out
    assert not (tmp_path / "out").exists() and not http.seen


def test_names_and_headers(batch, tmp_path, http):
    (tmp_path / "token").write_text("Authorization: Bearer secret\n")
    name = "{job}/{number:03}-{node}-{name}-{index}"
    assert main(batch("--name", name, "--header", f"@{tmp_path}/token", "--quiet")) == 3
    assert (tmp_path / "out/a/001-Save-cut_00000_-1.png").is_file()
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in http.seen)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out/_batch").glob("*") if path.is_file())
    assert b"secret" not in kept


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--manifest", "x.csv"], "leave out --image"),
        (["--input", "Cut"], "is not NAME=VALUE"),
        (["--header", "nonsense"], "A header is"),
        (["--header", "@/nowhere/x"], "/nowhere/x cannot be read"),
        (["--name", "../{job}"], "leads out of the output folder"),
        (["--server", "ftp://x"], "is no address"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(batch, capsys, more, words):
    assert main(batch(*more)) == 2
    assert words in capsys.readouterr().err


def test_no_server_is_found_out_at_once(batch, tmp_path, capsys):
    arguments = batch()
    arguments[arguments.index("--server") + 1] = "http://127.0.0.1:9"
    assert main(arguments) == 2
    assert "No server can be used. http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_server_that_lacks_a_node_sets_nothing_aside(batch, tmp_path, http, capsys):
    http.answers["/object_info/Cut"] = [(200, b"{}")]
    assert main(batch()) == 4
    assert "lacks the nodes Cut" in capsys.readouterr().err
    report = json.loads((tmp_path / "out/_batch/report.json").read_text())
    assert report["unfinished"] == 4 and "lacks the nodes Cut" in report["end"]


def test_dropped_requests_of_every_kind_lose_nothing(batch, tmp_path, http):
    for path in ("/system_stats", "/upload/image", "/prompt", "/queue", "/view"):
        http.answers[path] = [(0, None), (502, b"bad gateway")]
    http.answers["/system_stats"].insert(0, (200, b'{"system": {}}'))
    assert main(batch("--quiet")) == 3
    assert results(tmp_path) == EXPECTED
    assert good_ones(http) == 3


def test_a_second_run_on_the_same_folder_is_refused(batch, http):
    http.pace = 0.5
    first = start(batch("--quiet"))
    wait_for(lambda: http.submitted)
    second = start(batch("--quiet"))
    assert "Another run is working with" in second.communicate(timeout=60)[1] and second.returncode == 2
    http.pace = 0.001
    assert first.wait(60) == 3


def test_ctrl_c_finishes_what_is_in_flight_and_the_next_run_goes_on(batch, tmp_path, http):
    http.pace = 0.3
    run = start(batch("--in-flight", "1"))
    wait_for(lambda: http.submitted)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "Stopping: waiting for 1 jobs" in err
    assert "1 of 4 jobs done" in out and "Run the same command again to go on" in err
    http.pace = 0.001
    assert main(batch("--quiet")) == 3
    assert results(tmp_path) == EXPECTED and len(http.submitted) == 5


def test_ctrl_c_twice_leaves_at_once_and_the_next_run_fetches(batch, tmp_path, http):
    http.pace = 3600
    run = start(batch("--in-flight", "4"))
    wait_for(lambda: len(http.submitted) == 4)
    for _ in range(2):
        run.send_signal(signal.SIGINT)
        time.sleep(1)
    assert run.wait(60) == 130
    http.pace = 0.001
    assert main(batch("--quiet")) == 3
    assert results(tmp_path) == EXPECTED
    assert len(http.submitted) == 5, "only the bad picture is sent again"


def test_kill_9_at_any_moment_and_again(batch, tmp_path, http):
    http.pace = 0.05
    for pause in (0.05, 0.3, 0.6):
        run = start(batch("--quiet"))
        wait_for(lambda: http.submitted)
        time.sleep(pause)
        run.kill()
        run.wait()
    assert main(batch("--quiet")) == 3
    assert results(tmp_path) == EXPECTED
    assert good_ones(http) == 3


def test_journals_that_are_none(batch, tmp_path, capsys):
    own = tmp_path / "out/_batch"
    own.mkdir(parents=True)
    (own / "journal.sqlite3").write_bytes(b"no database, but long enough to be looked at" * 9)
    assert main(batch()) == 2
    assert "is no journal of a batch" in capsys.readouterr().err
    (own / "journal.sqlite3").unlink()
    with sqlite3.connect(own / "journal.sqlite3") as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    assert main(batch()) == 2
    assert "is of format 7" in capsys.readouterr().err


def test_without_the_packages_it_says_what_to_install(batch, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "requests", None)
    assert main(batch()) == 2
    assert "pip install -r requirements-batch.txt" in capsys.readouterr().err
