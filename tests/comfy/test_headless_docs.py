"""The examples of docs/headless.md, as they are written, against a real ComfyUI."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs/headless.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.S | re.M)


def test_the_page_has_all_three_kinds_of_examples():
    text = "".join(code for _, code in EXAMPLES)
    assert "curl" in text and "server.submit" in text and text.count("omnialpha batch") == 3
    assert len(EXAMPLES) == PAGE.count("\n```\n"), "every block is an example that runs"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="the examples need curl and bash")
def test_the_examples_run_as_written(comfy, tmp_path):
    for name in ("workflows", "omnialpha"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "COMFYUI": comfy.url, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    for kind, code in EXAMPLES:
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [python, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == [
        "cutouts/omnialpha_frog-01.png",
        "cutouts/omnialpha_gift-01.png",
        "drawn/apple-01.png",
        "drawn/pear-01.png",
        "frog-curl.png",
        "lotus-1.png",
        "removed/omnialpha_gift-01.png",
    ]
    for name in found:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.mode == "RGBA", name
