"""What the tests in a browser share."""

from __future__ import annotations

import shutil

import comfy_server
import pytest


@pytest.fixture(scope="module")
def fresh(comfy: comfy_server.ComfyServer) -> comfy_server.ComfyServer:
    """The shared server, without what pages opened by other tests have set: language, palette, kind of nodes."""
    shutil.rmtree(comfy.base / "user/default", ignore_errors=True)
    return comfy
