"""Wherever a run is cut off, by its own end or a server's, the same command ends in the same state."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from batching import Trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pretend import BAD, PretendServer

from omnialpha.batch import results

CONTENTS = [b"1", b"2", BAD, b"4"]


class Crash(BaseException):
    """kill -9 of the program."""


class Fuse:
    """Counts what a run does to journal, disk and servers, before and after each, and cuts it off at a count."""

    def __init__(self):
        self.count, self.at = 0, None

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash

    def watch(self, thing):
        """`thing`, every method of which may be the last."""
        return _Watched(thing, self)

    def around(self, function):
        """A function that may be the last."""

        def watched(*args, **kwargs):
            self()
            answer = function(*args, **kwargs)
            self()
            return answer

        return watched


class _Watched:
    def __init__(self, thing, fuse: Fuse):
        self._thing, self._fuse = thing, fuse

    def __getattr__(self, name: str):
        value = getattr(self._thing, name)
        return self._fuse.around(value) if callable(value) else value


@pytest.fixture(scope="module")
def watched_put():
    """`results.put`, which gives files their names, is watched by the fuse of the test that runs."""
    original, holder = results.put, {}
    results.put = lambda part, final: holder["fuse"].around(original)(part, final)
    yield holder
    results.put = original


def run(root: Path, holder, gaps=(), kills=(), servers: int = 2, idle: int = 0, contents=CONTENTS):
    """Run a batch that is cut off after each of `gaps` effects, until it finishes.

    Args:
        kills: turns at which a server is killed, alternating between them; it is started again three turns later.
        idle: turns that servers work on after the program was cut off.

    Returns:
        (files, states, downloads left behind, attempts left open, what the first server executed, effects of the last
        part)
    """
    fuse = holder["fuse"] = Fuse()
    batch = Trial(root, [PretendServer(f"http://{i}") for i in range(servers)], contents, wrap=fuse.watch)
    gaps, turn = list(gaps), 0
    while True:
        fuse.count, fuse.at = 0, gaps.pop(0) if gaps else None
        try:
            batch.open()
            while batch.board.unfinished:
                batch.step()
                turn += 1
                for number, at in enumerate(kills):
                    server = batch.servers[number % servers]
                    if turn == at:
                        server.kill()
                    if turn == at + 3:
                        server.start()
                assert turn < 3000, batch.events[-5:]
            break
        except Crash:
            batch.close()
            for _ in range(idle):
                for server in batch.servers:
                    server.work()
            batch.clock.now += idle
    for _ in range(100):  # servers that come back are told what is not wanted any more
        batch.step()
    executed = sorted(batch.servers[0].executed)
    found = batch.files(), batch.table(), batch.parts(), batch.journal.open_attempts(), executed, fuse.count
    batch.close()
    return found


@pytest.fixture(scope="module")
def unbroken(watched_put, tmp_path_factory):
    found = run(tmp_path_factory.mktemp("unbroken"), watched_put)
    assert set(found[0]) == {f"{letter}-{index:02}.png" for letter in "abd" for index in (1, 2)}
    assert found[1] == {"a": ("done", None), "b": ("done", None), "c": ("set aside", "failed"), "d": ("done", None)}
    assert found[2:4] == ([], [])
    return found


def test_cut_off_once_at_every_point(watched_put, tmp_path):
    """Before and after each effect. The one server stays up, so nothing may be executed a second time."""
    options = {"servers": 1, "contents": [b"1", BAD]}
    *whole, total = run(tmp_path / "whole", watched_put, **options)
    assert total > 50 and set(whole[0]) == {"a-01.png", "a-02.png"}
    for at in range(1, total):
        assert run(tmp_path / str(at), watched_put, [at], idle=at % 4, **options)[:5] == tuple(whole), at


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 150), max_size=10),
    kills=st.lists(st.integers(1, 60), max_size=2),
    servers=st.integers(1, 2),
    idle=st.integers(0, 8),
)
def test_any_interleaving_ends_in_the_same_state(unbroken, watched_put, gaps, kills, servers, idle):
    with tempfile.TemporaryDirectory() as folder:
        assert run(Path(folder), watched_put, gaps, kills, servers, idle)[:4] == unbroken[:4]
