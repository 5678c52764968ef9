"""What `pip install .` gives: the whole library, its checkpoint and the demo's pictures, and the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = 77  # setuptools' first release that knows `license-files`, see pyproject.toml

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, with an environment that leads to no other copy of the library."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout


def library() -> list[Path]:
    """The library's files, relative to the repository."""
    files = (path for path in (ROOT / "omnialpha").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(ROOT) for path in files]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    try:
        found = version("setuptools")
    except PackageNotFoundError:
        found = "0"
    if int(found.split(".")[0]) < NEEDED:
        pytest.skip(f"THE WHEEL IS NOT TESTED: setuptools {NEEDED} or newer builds it, and there is {found}")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves a build folder where it works
    named = [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "NOTICE",
        *(path.name for path in ROOT.glob("requirements*.txt")),
    ]
    for path in [*library(), *map(Path, named)]:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, source / path)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index")
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory) -> Path:
    """`omnialpha` in a virtual environment of its own, which borrows this one's other packages."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    bin = place / ("Scripts" if os.name == "nt" else "bin")
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", bin / "python", *install, cwd=place.parent)
    own = run(bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place.parent).strip()
    (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return bin / "omnialpha"


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {path.as_posix() for path in library()}


def test_it_runs_from_anywhere(command, tmp_path):
    assert "matting_trimap" in run(command, "tasks", cwd=tmp_path)
    found = run(command, "inspect", "micro", cwd=tmp_path).splitlines()
    assert found[0].endswith("micro: checkpoint") and str(command.parent.parent) in found[0]


def test_it_makes_layers(command, tmp_path):
    run(command, "run", "matting_auto", "--image", ROOT / "docs/images/icon.png", "--out", "made", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "made").glob("*.png")]
