"""A ComfyUI that is too old gets one line in its log and keeps its other nodes; stand-ins play the old releases."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports the pack the way ComfyUI does, under any name, and tells what came of it.
LOAD = """
import importlib.util, logging, sys
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
spec = importlib.util.spec_from_file_location("some_folder", sys.argv[1], submodule_search_locations=[sys.argv[2]])
module = importlib.util.module_from_spec(spec)
sys.modules["some_folder"] = module
spec.loader.exec_module(module)
print("NODES", module.NODE_CLASS_MAPPINGS, hasattr(module, "comfy_entrypoint"))
"""

OLD = {
    "0.3.64": ({"comfyui_version.py": '__version__ = "0.3.64"'}, "this one is 0.3.64"),
    "no node API": ({"comfyui_version.py": '__version__ = "0.9.0"'}, "has no node API comfy_api.v0_0_2"),
    "no growing inputs": (
        {"comfyui_version.py": '__version__ = "custom"', "comfy_api/v0_0_2.py": "class io: pass"},
        "without growing inputs (io.Autogrow)",
    ),
    "not ComfyUI at all": ({}, "has no node API comfy_api.v0_0_2"),
}


@pytest.mark.parametrize("release", OLD)
def test_one_line_and_no_nodes(release, tmp_path):
    files, reason = OLD[release]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{LOAD}"]
    done = subprocess.run([*command, str(ROOT / "__init__.py"), str(ROOT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    line, nodes = done.stdout.splitlines()
    needs = "ERROR ComfyUI-OmniAlpha needs ComfyUI 0.8.0 or newer (tested on 0.8.0 and 0.33.0); this one "
    assert line.startswith(needs) and reason in line
    assert "Update ComfyUI" in line
    assert nodes == "NODES {} False"
