"""JSON that people and other programs wrote, read in one place: what is wrong with a file is said in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import OmniAlphaError

_NAMES = {dict: "a JSON object {...}", list: "a JSON list [...]"}


def read_json(path: str | Path, kind: type = dict, advice: str = "Fetch or write the file again.") -> Any:
    """The object (or list) in a JSON file, with or without a byte order mark.

    Args:
        path: the file.
        kind: dict or list, what it has to hold.
        advice: what to do about a damaged file, for the message.

    Raises:
        OmniAlphaError: unreadable, not JSON, or JSON of another kind.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise OmniAlphaError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too
        raise OmniAlphaError(f"{path} is not valid JSON: {error}. {advice}") from error
    if not isinstance(data, kind):
        raise OmniAlphaError(f"{path} holds {type(data).__name__}, expected {_NAMES[kind]}. {advice}")
    return data
