"""Make the development environment: a virtual environment with the CPU build of torch and everything the tests need.

`make` calls this; by hand it is `python3 tools/setup_env.py .venv`. With `--lowest` it takes the oldest versions that
requirements.txt allows (of torch the usual one), to see that its bounds are true. Standard library only. Running it
again repairs or updates the environment and is quick when there is nothing to do.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints-dev.txt"
REQUIREMENTS = ROOT / "requirements-dev.txt"
# PyTorch's own index of CPU builds: the one on PyPI brings several gigabytes of CUDA along on Linux.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def make_venv(folder: Path) -> Path:
    """Create `folder` where it is missing; return its Python."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    usable = python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not usable:  # missing, or left half-made by an interrupted run
        print(f"Creating {folder}", flush=True)
        venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    return python


def pip(python: Path, *args: str | Path, constraints: Path = CONSTRAINTS, quiet_failure: bool = False) -> bool:
    """Run pip inside the environment; return whether it succeeded."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, *args]
    return subprocess.run(command, stderr=subprocess.DEVNULL if quiet_failure else None).returncode == 0


def install_torch(python: Path) -> bool:
    """Install the CPU build of torch: from a source pip already knows (a wheel folder, a mirror), else from PyTorch."""
    print("Installing the CPU build of torch", flush=True)
    return pip(python, "torch", quiet_failure=True) or pip(python, "torch", "--index-url", TORCH_CPU_INDEX)


def lowest_constraints(folder: Path) -> Path:
    """A constraints file in `folder` that turns the lower bounds of requirements.txt into exact versions."""
    bounds = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if ">=" in line]
    torch = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch==")]
    path = folder / "lowest.txt"
    exact = [line.replace(">=", "==", 1) for line in bounds if not line.startswith("torch>=")]  # the first: not markers
    path.write_text("\n".join(exact + torch))
    return path


def main(folder: Path, lowest: bool = False) -> int:
    """Set up `folder`; return the exit status."""
    found = sys.version_info
    if found < (3, 10):  # this script is the one place that an older Python may meet
        return fail(
            f"Python 3.10 or newer is needed and this is {found.major}.{found.minor}. "
            "Name another: make PYTHON=python3.12 test"
        )
    try:
        python = make_venv(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        return fail(
            f"Cannot create the virtual environment {folder}: {error}\n"
            "On Debian and Ubuntu the module for it is a package of its own: apt install python3-venv"
        )
    if not install_torch(python):
        return fail(
            f"Cannot install torch. Is {TORCH_CPU_INDEX} reachable from here? "
            "A folder that holds the wheel does as well: PIP_FIND_LINKS=/that/folder make test"
        )
    print("Installing the packages of requirements-dev.txt", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        constraints = lowest_constraints(Path(scratch)) if lowest else CONSTRAINTS
        if not pip(python, "-r", REQUIREMENTS, constraints=constraints):
            return fail("pip could not install requirements-dev.txt; its own words are above.")
    return 0


def fail(message: str) -> int:
    """Say what went wrong; return the exit status for it."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if argument != "--lowest"]
    sys.exit(main(Path(folders[0] if folders else ROOT / ".venv"), "--lowest" in sys.argv))
