"""What all tests share: no network, a loud word about what is skipped, and one ComfyUI server for all who need it."""

from __future__ import annotations

import os
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
    comfy = skips.get("comfy")
    lines = [f"ComfyUI: {comfy_server.find_comfyui()}" if not comfy else f"ComfyUI TESTS ARE SKIPPED: {comfy}"]
    if not comfy:
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
    for name, why in _skips().items():
        count = sum(report.nodeid.startswith(f"tests/{name}/") for report in skipped)
        if count:
            terminalreporter.write_line(f"{count} tests in tests/{name} DID NOT RUN: {why}.", yellow=True, bold=True)


@pytest.fixture(scope="session")
def comfy():
    """A running `comfy_server.ComfyServer` with the pack linked in, shared by the whole session."""
    with comfy_server.ComfyServer() as server:
        yield server
