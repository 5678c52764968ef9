"""What all tests share: no network, a loud word about what is skipped, and one server of each ComfyUI."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would fetch something has to fail instead
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import comfy_server
import frontend

# How long a test takes says nothing about it on a machine that others use as well.
settings.register_profile("omnialpha", deadline=None)
settings.load_profile("omnialpha")

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FOUND = comfy_server.find_comfyuis()


class _RootIsAFolder:
    """Keeps pytest from taking the repository for a package and importing the node pack's __init__.py."""

    @pytest.hookimpl
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def _skips() -> dict[str, str]:
    """Marker -> why its tests cannot run here; a marker that can is left out."""
    no_comfy = comfy_server.missing_comfyui()
    no_browser = no_comfy or frontend.missing_browser()
    return {name: why for name, why in (("comfy", no_comfy), ("browser", no_browser)) if why}


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_RootIsAFolder(), "omnialpha-root")


def pytest_report_header() -> list[str]:
    skips = _skips()
    lines = [
        f"ComfyUI {found.version} TESTS ARE SKIPPED: {found.why_not}" if found.why_not else
        f"ComfyUI {found.version}: {found.folder}"
        for found in FOUND
    ]  # fmt: skip
    if "comfy" not in skips:
        browser = skips.get("browser")
        lines.append(f"browser: {frontend.find_chromium()}" if not browser else f"BROWSER TESTS ARE SKIPPED: {browser}")
        more = filter(None, (comfy_server.missing_comfy_cli(), frontend.missing_newest()))
        lines += [f"SOME TESTS ARE SKIPPED: {why}" for why in more]
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skips = _skips()
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        markers = {"comfy": ("comfy",), "browser": ("browser", "comfy")}.get(folder, ())
        for name in markers:
            item.add_marker(name)
            if name in skips:
                item.add_marker(pytest.mark.skip(reason=skips[name]))
                break


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if hasattr(report, "nodeid")]
    why = Counter((report.nodeid.split("/")[1], report.longrepr[2].removeprefix("Skipped: ")) for report in skipped)
    for (folder, reason), count in why.items():
        if folder in ("comfy", "browser"):
            line = f"{count} tests in tests/{folder} DID NOT RUN: {reason}."
            terminalreporter.write_line(line, yellow=True, bold=True)


def each_comfyui(found: comfy_server.Found) -> pytest.param:
    """A fixture's parameter: its folder, under its version; skipped where it cannot be started."""
    marks = [pytest.mark.skip(reason=found.why_not)] if found.why_not else []
    return pytest.param(found.folder, id=found.version, marks=marks)


@pytest.fixture(scope="session", params=map(each_comfyui, FOUND))
def comfyui(request: pytest.FixtureRequest) -> Path:
    """The folder of a ComfyUI. What uses it runs once with each; pytest sorts tests so that it changes seldom."""
    return request.param


@pytest.fixture(scope="session")
def comfy(comfyui: Path):
    """A running `comfy_server.ComfyServer` with the pack linked in, shared by all tests on that ComfyUI."""
    with comfy_server.ComfyServer(comfyui=comfyui) as server:
        yield server
