"""Fetch the newest ComfyUI frontend from PyPI, for the tests that open workflows in it as well as in ComfyUI's own.

    make newest-frontend

It is unpacked to .cache/frontend, where frontend.py looks for it; nothing is installed. Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "comfyui-frontend-package"
TARGET = Path(__file__).resolve().parent.parent / ".cache/frontend"


def main() -> int:
    """Fetch and unpack; return the exit status."""
    TARGET.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        wheel = next(Path(folder).glob("*.whl"))
        unpacked = Path(folder) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            # Source maps are two thirds of it, and only debuggers read them.
            archive.extractall(unpacked, [name for name in archive.namelist() if not name.endswith(".map")])
        shutil.rmtree(TARGET, ignore_errors=True)
        unpacked.rename(TARGET)
    print(f"{wheel.stem} is in {TARGET.relative_to(TARGET.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
