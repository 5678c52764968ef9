"""Which ComfyUIs the tests run on, and that those which are missing are spoken of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import comfy_server
import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a ComfyUI, and nothing in the environment that names one."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(comfy_server, "ROOT", tmp_path / "no ComfyUI/custom_nodes/pack")
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def a_comfyui(folder: Path, version: str | None, python: bool = True) -> Path:
    """Enough of a ComfyUI to be found."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    if version:
        (folder / "comfyui_version.py").write_text(f'# made\n__version__ = "{version}"\n')
    if python:
        (folder / "venv/bin").mkdir(parents=True)
        (folder / "venv/bin/python").touch()
    return folder


def names(monkeypatch: pytest.MonkeyPatch, name: str, *places: object) -> None:
    monkeypatch.setenv(name, os.pathsep.join(map(str, places)))


def test_the_tested_ones_are_looked_for(home):
    missing = comfy_server.find_comfyuis()
    assert [found.version for found in missing] == ["0.8.0", "0.33.0"]
    assert all(found.version in found.why_not and str(found.folder) in found.why_not for found in missing)
    assert comfy_server.find_comfyui() is None and "0.33.0" in comfy_server.missing_comfyui()

    new, old = a_comfyui(home / "comfy/ComfyUI-new", "0.33.0"), a_comfyui(home / "comfy/ComfyUI", "0.8.0")
    assert comfy_server.find_comfyuis() == [("0.8.0", old, None), ("0.33.0", new, None)]
    assert comfy_server.find_comfyui() == old and comfy_server.missing_comfyui() is None


def test_others_are_taken_and_each_version_once(home):
    above = a_comfyui(home / "no ComfyUI", "0.20.1")
    same = a_comfyui(home / "ComfyUI", "0.20.1")
    found = comfy_server.find_comfyuis()
    assert [(one.version, bool(one.why_not)) for one in found] == [("0.8.0", True), ("0.20.1", False), ("0.33.0", True)]
    assert found[1].folder == above != same


def test_named_ones_are_taken_in_their_order_and_alone(home, monkeypatch):
    a_comfyui(home / "comfy/ComfyUI", "0.8.0")
    new, fork = a_comfyui(home / "b", "0.33.0"), a_comfyui(home / "a", None)
    bare, nowhere = a_comfyui(home / "c", "0.9.1", python=False), home / "nowhere"
    names(monkeypatch, "COMFYUI_PATH", new, nowhere, "", fork, bare)
    first, second, third, fourth = comfy_server.find_comfyuis()
    assert first == ("0.33.0", new, None) and third == ("unknown", fork, None)
    assert f"{nowhere}, which is no ComfyUI" in second.why_not
    assert fourth.version == "0.9.1" and f"no Python found beside {bare}" in fourth.why_not
    with pytest.raises(RuntimeError, match="which is no ComfyUI"):
        comfy_server.ComfyServer(comfyui=nowhere).__enter__()


def test_one_python_for_all_or_one_for_each(home, monkeypatch):
    new, old = a_comfyui(home / "new", "0.33.0"), a_comfyui(home / "old", "0.8.0")
    mine = home / "my python"
    mine.touch()
    names(monkeypatch, "COMFYUI_PATH", new, old)
    names(monkeypatch, "COMFYUI_PYTHON", mine)
    assert [comfy_server.find_python(folder) for folder in (new, old)] == [mine, mine]
    names(monkeypatch, "COMFYUI_PYTHON", "", mine)
    assert [comfy_server.find_python(folder) for folder in (new, old)] == [new / "venv/bin/python", mine]
    names(monkeypatch, "COMFYUI_PYTHON", mine, mine, mine)
    assert "COMFYUI_PYTHON names 3 and COMFYUI_PATH 2" in comfy_server.missing_comfyui()


def test_what_is_missing_is_said_first_and_last(tmp_path):
    names_two = os.pathsep.join(str(tmp_path / name) for name in ("one", "other"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/comfy/test_preview.py"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "COMFYUI_PATH": names_two},
        capture_output=True,
        text=True,
    )
    first, _, last = done.stdout.partition("collected")
    for name in ("one", "other"):
        why = f"COMFYUI_PATH names {tmp_path / name}, which is no ComfyUI"
        assert f"ComfyUI unknown TESTS ARE SKIPPED: {why}" in first
        assert f"1 tests in tests/comfy DID NOT RUN: {why}" in last
