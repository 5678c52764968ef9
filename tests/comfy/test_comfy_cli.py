"""comfy-cli, the command line of ComfyUI's registry, finds nothing wrong with the exports nor with the pack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import comfy_server
import pytest

ROOT = comfy_server.ROOT
EXPORTS = sorted((ROOT / "workflows/api").glob("*.json"))
pytestmark = pytest.mark.skipif(
    bool(comfy_server.missing_comfy_cli()), reason=comfy_server.missing_comfy_cli() or "comfy-cli is there"
)


@pytest.fixture
def object_info(stocked: comfy_server.ComfyServer, tmp_path: Path) -> Path:
    """What a ComfyUI says of its nodes that has every model file the workflows name."""
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(stocked.get("/object_info")), encoding="utf-8")
    return path


def comfy_cli(home: Path, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run comfy-cli with a home of its own: it keeps settings there, and asks before it counts its users."""
    command = [comfy_server.find_comfy_cli(), "--skip-prompt", "--json", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True)


def validated(home: Path, workflow: Path, object_info: Path) -> dict:
    done = comfy_cli(home, "workflow", "validate", "--workflow", workflow, "--input", object_info)
    return json.loads(done.stdout)


def test_exports_are_valid(tmp_path: Path, object_info: Path):
    answers = {path.stem: validated(tmp_path, path, object_info) for path in EXPORTS}
    wrong = {name: answer for name, answer in answers.items() if not (answer["ok"] and answer["data"]["valid"])}
    assert EXPORTS and not wrong
    assert not [warning for answer in answers.values() for warning in answer["data"]["warnings"]]


def test_a_broken_export_is_not(tmp_path: Path, object_info: Path):
    graph = json.loads(EXPORTS[0].read_text(encoding="utf-8"))
    next(node for node in graph.values() if node["class_type"] == "OmniAlphaTask")["inputs"]["task"] = "no_such_task"
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(graph), encoding="utf-8")
    answer = validated(tmp_path, broken, object_info)
    assert not answer["ok"] or not answer["data"]["valid"]


def test_the_pack_may_be_published(tmp_path: Path):
    """On a copy of what git tracks, as a publisher's checkout is."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pack = tmp_path / "pack"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("omnialpha/micro/", "tests/golden/")):
            (pack / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, pack / name)
    done = comfy_cli(tmp_path, "node", "validate", cwd=pack)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "validation checks passed" in said, said
