"""Importing the package costs nothing until something of it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import omnialpha


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, omnialpha; omnialpha.__version__; dir(omnialpha);"
        "print([name for name in ('torch', 'numpy', 'PIL', 'diffusers', 'safetensors') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parent.parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", omnialpha.__all__)
def test_every_public_name_is_there(name):
    assert getattr(omnialpha, name) is not None and name in dir(omnialpha)


def test_the_public_names_are_documented():
    table = (Path(__file__).resolve().parent.parent / "docs/command-line.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(omnialpha.__all__)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="nothing_such"):
        omnialpha.nothing_such  # noqa: B018
