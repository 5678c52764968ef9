"""The checks of `inside/`, each as a test of its own. They run in ComfyUI's Python, all in one process."""

import re
from pathlib import Path

import pytest

CHECKS = [
    (file.stem.removeprefix("checks_"), name)
    for file in sorted((Path(__file__).parent / "inside").glob("checks_*.py"))
    for name in re.findall(r"^def (check_\w+)", file.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(("subject", "name"), CHECKS, ids=[f"{s}-{n.removeprefix('check_')}" for s, n in CHECKS])
def test_check(inside, subject, name, record_property):
    result = inside[f"{subject}.{name}"]
    record_property("measured", result["measured"])
    print(result["measured"])
    assert result["error"] is None, result["error"]
