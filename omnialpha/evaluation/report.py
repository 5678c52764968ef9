"""What an evaluation leaves in its folder: results.json, results.csv, table.md, problems.json, plots and sheets."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import OmniAlphaError
from ..files.run_folder import claim
from ..files.writing import write_json, write_over
from .results import Results

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "pymatting", "diffusers", "transformers")


def open_folder(out: Path, config: Mapping[str, Any]) -> None:
    """Make the folder, or see that it belongs to this configuration, so that the run can go on.

    Raises:
        OmniAlphaError: it holds something else, or cannot be written to.
    """
    claim(out, config, what="an evaluation", alone=True)


def write_report(
    out: Path, results: Results, config: Mapping[str, Any], problems: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write everything but plots and sheets, each file whole or not at all.

    Args:
        problems: what was left out before the evaluation began, beside `results.problems()`.

    Raises:
        DiskError: a file cannot be written.
    """
    problems = [*problems, *results.problems()]
    write_json(
        out / "results.json",
        {
            "config": dict(config),
            "software": software(),
            "tasks": results.summary(),
            "problems": problems,
            "records": list(results.rows),
        },
    )
    title = f"# {config.get('checkpoint', config.get('predicted'))} on {config.get('data', config.get('truth'))}"
    page = f"{title}\n\n{results.table()}\n\n## Every measure\n\n{results.table(every=True)}\n"
    for name, text in (("results.csv", results.csv()), ("table.md", page)):
        write_over(out / name, text)
    if problems:
        write_json(out / "problems.json", problems)
    else:
        (out / "problems.json").unlink(missing_ok=True)  # of a run before, since mended


def software() -> dict[str, str]:
    """Versions of what made the numbers."""
    versions = {"omnialpha": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def fingerprint(*places: Path | str | None) -> dict[str, str]:
    """SHA-256 of weight files (or every one below a folder) by name; None is no place.

    Raises:
        OmniAlphaError: a file cannot be read.
    """
    found = {}
    for place in (Path(place) for place in places if place is not None):
        for path in sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]:
            try:
                digest = _digest(path)
            except OSError as error:
                raise OmniAlphaError(f"{path} cannot be read: {error.strerror or error}.") from error
            found[str(path.relative_to(place.parent))] = digest
    return found


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
