"""A folder that belongs to one configuration: the same command goes on in it, another one is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OmniAlphaError
from ..json_files import read_json
from .writing import write_json

NOTE = "config.json"

FREE = ("save_every", "log_every", "sheet_every", "sheet_data", "held_out", "workers")  # these change no weights


def claim(
    folder: Path,
    config: Mapping[str, Any],
    *,
    note: str = NOTE,
    free: Sequence[str] = (),
    what: str = "a run",
    alone: bool = False,
    main: bool = True,
) -> None:
    """Make the folder with a note of its configuration, or see that it belongs to this one.

    Args:
        folder: the folder.
        config: what it is made by, ready for JSON.
        note: file that keeps it.
        free: keys that may differ.
        what: the folder holds, in words.
        alone: refuse a folder that has something else in it.
        main: is this the process that writes?

    Raises:
        OmniAlphaError: it belongs to another configuration, or cannot be written.
    """
    refuse_another(folder, config, note=note, free=free, what=what)
    if (folder / note).is_file():
        return
    if alone:
        refuse_strange(folder, what)
    if main:
        write_json(folder / note, dict(config))


def refuse_another(
    folder: Path, config: Mapping[str, Any], *, note: str = NOTE, free: Sequence[str] = (), what: str = "a run"
) -> None:
    """OmniAlphaError where the folder holds another configuration. Cheap: call it before anything heavy."""
    if (folder / note).is_file():
        found = read_json(folder / note, advice="Remove the folder, or give another --out.")
        refuse_difference(folder, found, config, free=free, what=what)


def refuse_difference(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, free: Sequence[str] = (), what: str = "a run"
) -> None:
    """OmniAlphaError naming the first key in which two configurations differ."""
    for key, was, now in _differences(found, wanted, free):
        unlike = (
            f"that says nothing of {key}, which is {now!r} now" if was is None else f"with {key} = {was!r}, not {now!r}"
        )
        raise OmniAlphaError(
            f"{folder} holds {what} {unlike}. Give the same configuration to go on with it, or another --out."
        )


def refuse_strange(folder: Path, what: str) -> None:
    """OmniAlphaError where the folder has something in it; what a killed process left half written does not count."""
    if folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise OmniAlphaError(f"{folder} has something in it that is not {what}. Give another --out.")


def _differences(found: Mapping, wanted: Mapping, free: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value found, value wanted) of everything that differs. A list is as good as a tuple."""
    for key in {**found, **wanted}:
        was, now = found.get(key), wanted.get(key)
        if key in free:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from ((f"{key}.{inner}", a, b) for inner, a, b in _differences(was, now, free))
        elif (list(was) if isinstance(was, tuple) else was) != (list(now) if isinstance(now, tuple) else now):
            yield key, was, now
