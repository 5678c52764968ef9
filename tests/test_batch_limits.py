"""How often each failure of a job is tried again."""

from __future__ import annotations

import pytest
from batching import Trial
from pretend import PretendServer

from omnialpha.batch.history import LIMITS

# Failures of the job itself, and after how many of them it is set aside; the others are the servers' fault.
OWN = {
    "refused": 1,
    "too large": 1,
    "changed": 1,
    "no results": 1,
    "failed": 2,
    "interrupted": 3,
    "vanished": 3,
    "crashed": 3,
    "damaged": 3,
    "server error": 3,
}
MANY = 12


@pytest.mark.parametrize("kind", LIMITS)
def test_a_job_is_set_aside_after_as_many_failures_as_its_kind_allows(tmp_path, kind):
    trial = Trial(tmp_path / "batch", [PretendServer()], [b"a", b"b"])
    trial.open()
    try:
        job, other = trial.ready.jobs
        for tries in range(1, MANY + 1):
            trial.journal.send(job.id, "server", f"id-{tries}")
            trial.board.failed(job, f"id-{tries}", "server", kind=kind, reason="so it goes", now=trial.clock())
            if trial.journal.state(job.id) == "set aside":
                break
        told = [event["event"] for event in trial.events]
        assert tries == OWN.get(kind, MANY), "how many failures it took"
        assert told == ["again"] * (tries - 1) + ["set aside"] if kind in OWN else ["again"] * MANY == told
        assert trial.journal.state(other.id) == "waiting", "the other job has nothing to do with it"
    finally:
        trial.close()


def test_failures_of_one_kind_do_not_count_for_another(tmp_path):
    trial = Trial(tmp_path / "batch", [PretendServer()], [b"a"])
    trial.open()
    try:
        job = trial.ready.jobs[0]
        for number, kind in enumerate(["crashed", "vanished", "failed", "crashed", "vanished", "damaged"]):
            trial.journal.send(job.id, "server", f"id-{number}")
            trial.board.failed(job, f"id-{number}", "server", kind=kind, reason="so it goes", now=trial.clock())
        assert trial.journal.state(job.id) == "waiting"
    finally:
        trial.close()
