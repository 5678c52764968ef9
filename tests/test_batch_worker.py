"""Batches against everything that servers do: killed, restarted, full, forgetful, interrupted, deleted from."""

from __future__ import annotations

import errno
import os

import pytest
from batching import Trial
from pretend import BAD, KILLER, PretendServer, picture

from omnialpha.batch import results
from omnialpha.batch.report import exit_code, summarise
from omnialpha.batch.server import ServerClosed, ServerTrouble
from omnialpha.files.writing import DiskError

GOOD = [b"1", b"2", b"3", b"4", b"5"]


@pytest.fixture
def trial(tmp_path):
    """Makes a trial that is open; closes it at the end."""
    made = []

    def start(contents=GOOD, servers=None, **options) -> Trial:
        made.append(Trial(tmp_path, servers or [PretendServer()], contents, **options))
        made[-1].open()
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_every_job_gets_its_results(trial):
    batch = trial()
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}
    assert list(batch.files()) == [f"{letter}-{index:02}.png" for letter in "abcde" for index in (1, 2)]
    assert len(set(batch.files().values())) == 10
    assert batch.parts() == []


def test_no_more_than_a_few_are_given_out_at_a_time(trial):
    batch = trial()
    most = 0
    while batch.board.unfinished:
        batch.step()
        server = batch.servers[0]
        most = max(most, len(server.pending) + bool(server.running))
    assert most == batch.limits.in_flight == 3


def test_the_same_command_again_runs_nothing(trial):
    batch = trial()
    batch.finish()
    files, batch.servers[0].submitted = batch.files(), []
    batch.close()
    batch.open()
    assert (batch.ready.jobs, batch.ready.done) == ([], 5)
    assert batch.files() == files


def test_only_what_is_missing_runs(trial):
    batch = trial()
    batch.finish()
    before = batch.files()
    (batch.out / "b-01.png").unlink()
    (batch.inputs / "f.png").write_bytes(b"6")
    batch.servers[0].executed = []
    batch.close()
    batch.open()
    assert ([job.name for job in batch.ready.jobs], batch.ready.gone) == (["b", "f"], 1)
    batch.finish()
    assert before.items() <= batch.files().items()
    assert set(batch.files()) - set(before) == {"f-01.png", "f-02.png"}


def test_an_input_that_changed_is_another_job(trial):
    batch = trial()
    batch.finish()
    before = batch.files()
    (batch.inputs / "a.png").write_bytes(b"other")
    batch.close()
    batch.open()
    batch.finish()
    assert before.items() <= batch.files().items(), "never over an existing file"
    assert set(batch.files()) - set(before) == {"a-01-2.png", "a-02-2.png"}


def test_a_bad_picture_is_set_aside_with_its_reason(trial):
    batch = trial([b"1", BAD, b"3"])
    batch.finish()
    assert batch.table() == {"a": ("done", None), "b": ("set aside", "failed"), "c": ("done", None)}
    rows = batch.journal.table([job.id for job in batch.jobs()])
    assert "cannot identify image file" in rows[1]["reason"] and "node 1, LoadImage" in rows[1]["reason"]
    assert (summarise(rows)["set aside"], exit_code(summarise(rows))) == (1, 3)


def test_what_was_set_aside_runs_again_only_when_asked(trial):
    batch = trial([b"1", BAD])
    batch.finish()
    batch.close()
    batch.open()
    assert (batch.ready.jobs, batch.ready.set_aside) == ([], 1)
    batch.close()
    batch.open(retry=True)
    assert [job.name for job in batch.ready.jobs] == ["b"]
    batch.finish()
    assert batch.table()["b"] == ("set aside", "failed")


def test_a_refused_graph_is_set_aside_at_once(trial):
    batch = trial()
    errors = {"2": {"class_type": "Cut", "errors": [{"message": "Value not in list", "details": "mode: 'x'"}]}}
    batch.servers[0].validate = lambda prompt: {"node_errors": errors}
    batch.finish()
    assert set(batch.table().values()) == {("set aside", "refused")}
    assert "Value not in list (mode: 'x')" in batch.journal.table([batch.jobs()[0].id])[0]["reason"]


def test_a_killed_server_forgets_and_its_jobs_run_again(trial):
    batch = trial()
    batch.until(lambda: batch.servers[0].running)
    batch.servers[0].kill()
    for _ in range(5):
        batch.step()
    batch.servers[0].start()
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}
    assert len(batch.files()) == 10


def test_jobs_of_a_dead_server_go_to_the_other(trial):
    batch = trial(servers=[PretendServer("http://one"), PretendServer("http://two")])
    batch.until(lambda: batch.servers[0].running)
    batch.servers[0].kill()
    batch.finish(steps=100)
    assert set(batch.table().values()) == {("done", None)}
    assert not batch.servers[0].up


def test_a_silent_server_that_comes_back_is_asked_before_anything_is_sent_again(trial):
    batch = trial([b"1", b"2"])
    server = batch.servers[0]
    batch.until(lambda: server.running)
    server.up = False  # unplugged: it works on and forgets nothing
    for _ in range(40):
        batch.step()
    server.up = True
    batch.finish()
    assert len(server.submitted) == 2


def test_jobs_that_moved_are_taken_from_the_queue_of_a_server_that_comes_back(trial):
    batch = trial(servers=[PretendServer("http://one"), PretendServer("http://two")])
    first = batch.servers[0]
    batch.until(lambda: len(first.pending) > 1)
    first.up, first.work = False, lambda: None  # and busy with something of its own
    waiting = [prompt_id for prompt_id, _ in first.pending]
    batch.finish(steps=200)
    first.up = True
    for _ in range(70):
        batch.step()
    assert set(first.unqueued) == set(waiting)
    assert len(batch.files()) == 10
    assert batch.journal.open_attempts() == []


def test_a_job_that_kills_servers_is_set_aside_and_the_rest_goes_on(trial):
    batch = trial([b"1", KILLER, b"3", b"4", b"5", b"6", b"7"])
    server = batch.servers[0]
    for _ in range(3000):
        if not batch.board.unfinished:
            break
        batch.step()
        if not server.up:
            server.start()  # at once, by some supervisor: only the websocket tells
            batch.workers[0].dropped = True
    assert batch.table()["b"] == ("set aside", "crashed")
    assert sum(state == "done" for state, _ in batch.table().values()) == 6


def test_a_server_that_fails_everybody_sets_nobody_aside(trial):
    batch = trial()
    batch.servers[0].submit = lambda *_: (_ for _ in ()).throw(ServerTrouble("answered 500", request=True))
    for _ in range(2000):
        batch.step()
    assert set(batch.table().values()) == {("waiting", None)}
    assert batch.workers[0].stuck() > batch.limits.patience, "the run gives up"
    del batch.servers[0].submit
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}


def test_a_job_that_a_server_answers_500_to_is_set_aside(trial):
    batch = trial()
    server, submit = batch.servers[0], batch.servers[0].submit
    bad = batch.jobs()[1].files[0].upload_name

    def picky(prompt, *rest):
        if prompt["1"]["inputs"]["image"] == bad:
            raise ServerTrouble("answered 500 to /prompt", request=True)
        return submit(prompt, *rest)

    server.submit = picky
    batch.finish()
    assert batch.table()["b"] == ("set aside", "server error")
    assert sum(state == "done" for state, _ in batch.table().values()) == 4


def test_an_answer_that_got_lost_is_no_second_submission(trial):
    batch = trial([b"1"])
    server, submit = batch.servers[0], batch.servers[0].submit

    def cut_off(*call):
        server.submit = submit
        submit(*call)
        raise ServerTrouble("read timed out")

    server.submit = cut_off
    batch.finish()
    assert len(server.submitted) == 1 and batch.table() == {"a": ("done", None)}


def test_deleted_from_the_queue_is_sent_again_but_not_for_ever(trial):
    batch = trial([b"1"])
    server = batch.servers[0]
    server.work = server.pending.clear
    batch.finish()
    assert batch.table() == {"a": ("set aside", "vanished")}
    assert len(server.submitted) == 3


def test_an_interrupt_is_tried_again(trial):
    batch = trial([b"1"])
    server, entry = batch.servers[0], batch.servers[0]._entry

    def interrupted(prompt_id, prompt, content):
        server._entry = entry
        message = ["execution_interrupted", {"node_id": "2", "node_type": "Cut"}]
        return {"outputs": {}, "status": {"status_str": "error", "messages": [message]}}

    server._entry = interrupted
    batch.finish()
    assert batch.table() == {"a": ("done", None)}
    assert [event["kind"] for event in batch.events if event["event"] == "again"] == ["interrupted"]


def test_a_history_entry_may_come_late(trial):
    batch = trial([b"1"])
    server, history, asked = batch.servers[0], batch.servers[0].history, []

    def late(prompt_id):
        asked.append(prompt_id)
        return history(prompt_id) if len(asked) > 2 else None

    server.history = late
    batch.finish()
    assert len(server.submitted) == 1


def test_a_damaged_download_is_fetched_again(trial):
    batch = trial([b"1"])
    server, download = batch.servers[0], batch.servers[0].download

    def cut_short(output, part):
        server.download = download
        part.write_bytes(picture("x")[:40])

    server.download = cut_short
    batch.finish()
    assert batch.table() == {"a": ("done", None)} and len(server.submitted) == 2
    assert len(batch.files()) == 2


def test_a_remembered_result_whose_file_is_gone_is_made_anew(trial):
    batch = trial([b"1"])
    batch.until(lambda: batch.servers[0].saved)
    batch.servers[0].saved.clear()  # and still it answers with their names
    batch.finish()
    assert batch.table() == {"a": ("done", None)} and len(batch.servers[0].submitted) == 2


def test_a_server_that_takes_jobs_and_runs_none_leaves_them_to_the_other(trial):
    batch = trial(servers=[PretendServer("http://one"), PretendServer("http://two")])
    batch.until(lambda: batch.servers[0].executed)
    batch.servers[0].stall()
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}
    executed = batch.servers[0].executed + batch.servers[1].executed
    assert len(executed) == len(set(executed)) == 5 and len(batch.files()) == 10
    assert any("none running" in event.get("reason", "") for event in batch.events)


def test_a_stalled_server_that_is_restarted_goes_on(trial):
    batch = trial()
    batch.servers[0].stall()
    batch.until(lambda: batch.workers[0].stuck() > 60)
    batch.servers[0].kill()
    batch.step()
    batch.servers[0].start()
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}


def test_an_old_server_that_chooses_ids_itself(trial):
    batch = trial()
    submit = batch.servers[0].submit
    batch.servers[0].submit = lambda prompt, prompt_id, client: submit(prompt, f"own-{prompt_id}", client)
    batch.finish()
    assert set(batch.table().values()) == {("done", None)}
    assert len(batch.servers[0].submitted) == 5


def test_a_server_without_entry_leaves_the_work_to_the_other(trial):
    batch = trial(servers=[PretendServer("http://one"), PretendServer("http://two")])
    batch.servers[0].check = lambda: (_ for _ in ()).throw(ServerClosed("answered 401: no entry"))
    batch.finish()
    rows = batch.journal.table([job.id for job in batch.jobs()])
    assert batch.workers[0].closed and {row["server"] for row in rows} == {"http://two"}


def test_an_input_that_changes_during_the_run_is_set_aside(trial):
    batch = trial()
    (batch.inputs / "e.png").write_bytes(b"changed meanwhile")
    batch.finish()
    rows = {row["name"]: row for row in batch.journal.table([job.id for job in batch.ready.jobs])}
    assert (rows["e"]["state"], rows["e"]["kind"]) == ("set aside", "changed")
    assert sum(row["state"] == "done" for row in rows.values()) == 4


def test_a_file_of_the_user_is_never_overwritten(trial):
    batch = trial()
    for name in ("b-01.png", "b-01-2.png"):
        (batch.out / name).write_bytes(b"mine")
    batch.finish()
    files = batch.files()
    assert files["b-01.png"] == files["b-01-2.png"] == b"mine"
    assert files["b-01-3.png"].startswith(b"\x89PNG")


def test_a_file_that_appears_in_the_last_moment_is_not_overwritten(trial, monkeypatch):
    batch = trial([b"1"])
    put = results.put

    def late(part, final):
        if final.name == "a-01.png" and not final.exists():
            final.write_bytes(b"mine")
        return put(part, final)

    monkeypatch.setattr(results, "put", late)
    batch.finish()
    assert batch.files()["a-01.png"] == b"mine"
    assert set(batch.files()) == {"a-01.png", "a-01-2.png", "a-02.png"}


def test_downloads_that_vanish_before_they_have_names_are_made_again(trial):
    batch = trial([b"1"])
    fetched = batch.journal.fetched

    def lose(job, *rest):
        batch.journal.fetched = fetched
        fetched(job, *rest)
        batch.folder.drop_parts(job)

    batch.journal.fetched = lose
    batch.finish()
    assert batch.table() == {"a": ("done", None)} and len(batch.files()) == 2
    assert len(batch.servers[0].submitted) == 2


def test_a_disk_without_hard_links(trial, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    batch = trial()
    (batch.out / "a-01.png").write_bytes(b"mine")
    batch.finish()
    files = batch.files()
    assert files["a-01.png"] == b"mine" and len(files) == 11 and batch.parts() == []
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name != "a-01.png")


def test_a_full_disk_stops_the_run_and_loses_nothing(trial, monkeypatch):
    batch = trial()
    batch.until(lambda: len(batch.files()) == 4)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(DiskError, match="No space left"):
        batch.finish()
    monkeypatch.undo()
    batch.close()
    batch.open()
    batch.finish()
    assert len(batch.files()) == 10 and len(batch.servers[0].submitted) == 5
