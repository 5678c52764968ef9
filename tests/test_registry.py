"""What docs.comfy.org/registry/specifications asks of pyproject.toml, and what ComfyUI's command line reads there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import comfy_server
import pytest
from PIL import Image

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
ROOT = Path(__file__).resolve().parent.parent
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, COMFY = FILE["project"], FILE["tool"]["comfy"]
GPUS = {"GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "NPU :: Huawei Ascend", "GPU :: Apple Metal"}


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def of_kind(kind: str) -> list[str]:
    return [one.removeprefix(f"{kind} :: ") for one in PROJECT["classifiers"] if one.startswith(f"{kind} :: ")]


def test_name():
    name = PROJECT["name"]
    assert len(name) < 100 and re.fullmatch(r"[A-Za-z](?:[._-]?[A-Za-z0-9])*", name)
    assert "comfy" not in name.lower()


def test_version_and_description():
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])
    assert 20 < len(PROJECT["description"]) < 200
    assert re.fullmatch(r">=3\.\d+", PROJECT["requires-python"])
    assert re.fullmatch(r">=\d+\.\d+\.\d+", COMFY["requires-comfyui"])


def test_classifiers_name_systems_and_gpus():
    systems, gpus = of_kind("Operating System"), of_kind("Environment")
    assert systems and all(one.startswith(("OS Independent", "Microsoft", "POSIX", "MacOS")) for one in systems)
    assert gpus and set(gpus) <= GPUS


def test_addresses_differ_in_nothing_but_their_marked_owner():
    """Whoever publishes replaces one word, in lines that stand together below the mark, and in the icon's."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    repository = PROJECT["urls"]["Repository"]
    owner = re.fullmatch(r"https://github\.com/([\w-]+)/ComfyUI-OmniAlpha", repository)[1]
    assert set(PROJECT["urls"]) == {"Repository", "Documentation", "Bug Tracker"}
    assert all(url.startswith(repository) for url in PROJECT["urls"].values())
    assert re.search(r"# PUBLIC ADDRESS: .*\n\[project\.urls\]\nRepository = ", text)
    assert COMFY["Icon"].startswith(f"https://raw.githubusercontent.com/{owner}/ComfyUI-OmniAlpha/main/")


def test_icon():
    file = ROOT / COMFY["Icon"].partition("/main/")[2]
    assert file.suffix in (".svg", ".png", ".jpg", ".gif")
    with Image.open(file) as icon:
        assert icon.width == icon.height <= 400


def test_publisher():
    assert re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", COMFY["PublisherId"]) and COMFY["DisplayName"]


def test_dependencies_are_those_of_the_requirements():
    assert PROJECT["dependencies"] == requirements()
    assert "dependencies" not in PROJECT["dynamic"] and "dependencies" not in FILE["tool"]["setuptools"]["dynamic"]


@pytest.mark.skipif(bool(comfy_server.missing_comfy_cli()), reason=comfy_server.missing_comfy_cli() or "it is there")
def test_comfy_cli_reads_all_of_it_without_a_warning():
    python = Path(comfy_server.find_comfy_cli()).parent / "python"
    code = (
        "import json; from dataclasses import asdict; from comfy_cli.registry import config_parser; "
        "print('READ ' + json.dumps(asdict(config_parser.extract_node_configuration('pyproject.toml'))))"
    )
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Warning" not in done.stdout + done.stderr, done.stdout
    read = json.loads(done.stdout.partition("READ ")[2])
    project = read["project"]
    assert (project["name"], project["version"]) == (PROJECT["name"], PROJECT["version"])
    assert project["dependencies"] == requirements()
    assert project["supported_os"] == of_kind("Operating System")
    assert project["supported_accelerators"] == of_kind("Environment")
    assert project["supported_comfyui_version"] == COMFY["requires-comfyui"]
    assert project["urls"]["repository"] == PROJECT["urls"]["Repository"] and project["license"]["text"] == "Apache-2.0"
    assert (read["tool_comfy"]["publisher_id"], read["tool_comfy"]["icon"]) == (COMFY["PublisherId"], COMFY["Icon"])
