"""The arithmetic of docs/scale.md, and that its table is what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import scale

PAGE = Path(__file__).resolve().parent.parent / "docs/scale.md"


def test_pictures_per_second():
    assert scale.rate(10, 4, 1, 0) == 2
    assert scale.rate(100, 4, 1, 0.1) == pytest.approx(10)  # one machine writes everything down


def test_hours():
    once = {"model": 4, "files": 1, "books": 0, "deaths": 0}
    assert scale.hours(7200, 10, start=0, **once) == 1
    assert scale.hours(7200, 10, start=3600, **once) == 2
    assert scale.hours(100_000, 10, start=3600, **once) == pytest.approx(2 + 50_000 / 3600)  # two rounds
    assert scale.hours(7200, 10, start=43195, **{**once, "deaths": 1}) == pytest.approx(43195 / 3600 + 2)  # half lost
    with pytest.raises(SystemExit, match="nothing gets done"):
        scale.hours(7200, 10, start=86400, **{**once, "deaths": 1})


def test_the_page_shows_what_the_command_prints(monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    command, table = re.search(r"```\n(python tools/scale.py plan .+?)\n```\n\n(\|.+?)\n\n", text, re.S).groups()
    monkeypatch.setattr("sys.argv", shlex.split(command)[1:])
    scale.main()
    assert capsys.readouterr().out.strip() == table


def test_a_worker_is_measured(monkeypatch, capsys):
    command = "scale.py measure --device cpu --size 64 --count 1 --task removal_mask"
    monkeypatch.setattr("sys.argv", command.split())
    scale.main()
    out = capsys.readouterr().out
    for name in ("start of a worker", "removal_mask, model", "removal_mask, files", "removal_mask, books"):
        assert re.search(rf"\| {name} \| \d+\.\d+ \| \d+\.\d+ \|", out)
