"""What all tests share: no network, a loud word about what is skipped, and one server of each ComfyUI."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

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
        f"ComfyUI {found.version} TESTS ARE SKIPPED: {found.why_not}"
        if found.why_not
        else f"ComfyUI {found.version}: {found.folder}"
        for found in FOUND
    ]
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


class Site(NamedTuple):
    """A ComfyUI and the frontend it serves, None for its own."""

    comfyui: Path
    front_end: Path | None = None


def sites(browser: bool) -> list:
    """What tests on ComfyUI run with: each one, and for the browser the newest with the newest frontend as well."""
    rows = [(found.version, Site(found.folder), found.why_not) for found in FOUND]
    if browser:
        newest = next((site for _, site, why_not in reversed(rows) if not why_not), rows[-1][1])
        why_not = comfy_server.missing_comfyui() or frontend.missing_newest()
        rows.append(("newest", Site(newest.comfyui, frontend.find_newest()), why_not))
    marks = [[pytest.mark.skip(reason=why_not)] if why_not else [] for *_, why_not in rows]
    return [pytest.param(site, id=name, marks=mark) for (name, site, _), mark in zip(rows, marks)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All that uses ComfyUI runs once per site. The scope is the session, so that pytest sorts tests by site."""
    if "site" in metafunc.fixturenames:
        browser = metafunc.definition.path.parent.name == "browser"
        metafunc.parametrize("site", sites(browser), indirect=True, scope="session")


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Site:
    return request.param


@pytest.fixture(scope="session")
def comfyui(site: Site) -> Path:
    """The folder of a ComfyUI."""
    return site.comfyui


@pytest.fixture(scope="session")
def comfy(site: Site):
    """A running `comfy_server.ComfyServer` with the pack linked in, shared by all tests of a site."""
    with comfy_server.ComfyServer(**site._asdict()) as server:
        yield server


@pytest.fixture(scope="session")
def stocked(site: Site):
    """Another that pretends to have what the shared workflows name: every model file, the loader of another pack."""
    names = frontend.model_names(sorted((ROOT / "workflows").glob("*.json")))
    with comfy_server.ComfyServer(model_names=names, other_packs=frontend.OTHER_PACKS, **site._asdict()) as server:
        yield server
