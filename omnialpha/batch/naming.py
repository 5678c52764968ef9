"""Names of results: from a template, confined to the output folder, usable on every system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from ..errors import OmniAlphaError
from ..files.names import is_reserved, shorten

OWN = "_batch"  # folder below the results for the journal, unfinished downloads and reports
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)(?::0?(\d+))?\}")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_LONGEST = 200  # bytes of a name's part; systems allow 255 and a number and an ending may be added


def fill(template: str, fields: Mapping[str, object]) -> str:
    """`template` with its `{field}`s; `{index:02}` pads with zeros, `{{` and `}}` are braces.

    Raises:
        OmniAlphaError: it has a field that is not there; the message lists those that are.
    """

    def value(match: re.Match) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in fields:
            known = ", ".join(f"{{{name}}}" for name in fields)
            raise OmniAlphaError(f"'{template}' has {match[0]}, which is not known here; there are {known}.")
        return str(fields[match[1]]).zfill(int(match[2] or 0))

    return _FIELD.sub(value, template)


def result_path(template: str, fields: Mapping[str, object], ending: str) -> str:
    """Where a result goes, relative to the output folder, with "/" between folders.

    Slashes of the template make folders, and so do those in the field `folder`; other fields cannot leave their place.

    Args:
        ending: what the server's file ended with (".png"); dropped where it is no plain ending.

    Raises:
        OmniAlphaError: the template leads out of the folder, into the run's own one, or to no name at all.
    """
    if template.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", template):
        raise OmniAlphaError(f"The name '{template}' leads out of the output folder; give a relative one without '..'.")
    kept = {name: value if name == "folder" else _FORBIDDEN.sub("_", str(value)) for name, value in fields.items()}
    parts = [_part(part) for part in fill(template, kept).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        raise OmniAlphaError(f"The name '{template}' comes out empty.")
    if parts[0].lower() == OWN:
        raise OmniAlphaError(f"The name '{template}' leads into '{OWN}', which holds the journal. Choose another.")
    plain = ending.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,10}", ending) else ""
    return str(PurePosixPath(*parts[:-1], parts[-1] + plain))


def numbered(path: str, number: int) -> str:
    """`path`, from the second on with -2, -3, ... before its ending."""
    whole = PurePosixPath(path)
    return path if number < 2 else str(whole.with_name(f"{whole.stem}-{number}{whole.suffix}"))


def _part(name: str) -> str:
    """A folder's or file's name that Windows, macOS and Linux take."""
    name = _FORBIDDEN.sub("_", name).strip().rstrip(". ") or "_"
    return shorten(f"_{name}" if is_reserved(name) else name, _LONGEST)
