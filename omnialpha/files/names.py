"""What layers are called: in the viewer, in layered files, and as files of their own. One set of rules for all.

Names follow the task's roles where a task made the layers (`Task.names`). Written by people, they stand one per line
or, on a single line, with commas between them. As file names they are what every common system takes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ..errors import OmniAlphaError

MAX_BYTES = 255  # of UTF-8 in a file's name, ending included
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# Windows keeps these for devices, whatever follows after a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])[ .]*(\..*)?", re.IGNORECASE | re.DOTALL)
_SPARE = 8  # bytes that `distinct` keeps for a number


def default_names(count: int) -> list[str]:
    """background, layer 1, layer 2, ...: layers that nobody named. A single one is layer 1."""
    return ["background" if index == 0 and count > 1 else f"layer {max(index, 1)}" for index in range(count)]


def parse_names(text: str, count: int, known: Sequence[str] | None = None) -> list[str]:
    """Names as people write them, for layers that are to be saved or arranged.

    Args:
        text: one name per line, back to front; or, for several layers, on a single line with commas between them. An
            empty line (or nothing between two commas) leaves that layer its own name, where a name is given to every
            other one. An empty text names none.
        count: of layers.
        known: the layers' own names; `default_names` where there are none.

    Raises:
        OmniAlphaError: another number of names than layers, or two that would be the same file.
    """
    given, own = _split(text, count), _own(count, known)
    if len(given) not in (0, count):
        raise OmniAlphaError(
            f"{len(given)} names for {count} layers ({', '.join(given)}). Give one name per line, back to front, or "
            f"none at all."
        )
    return check_names([name or default for name, default in zip(given or own, own)])


def label_layers(text: str, count: int, known: Sequence[str] | None = None) -> list[str]:
    """`parse_names` where layers are only looked at: how many come is often not known when the names are written.

    Layers beyond the names keep their own, and names beyond the layers are not used.
    """
    given, own = _split(text, count)[:count], _own(count, known)
    return [name or default for name, default in zip(given + [""] * (count - len(given)), own)]


def _own(count: int, known: Sequence[str] | None) -> list[str]:
    """What layers are called that nobody gives a name."""
    return distinct(known) if known and len(known) == count else default_names(count)


def _split(text: str, count: int) -> list[str]:
    """The names in a text; empty ones count only where they make up the number of layers."""
    lines = re.split(r"\r\n|\r|\n", text.strip("\r\n"))
    parts = lines if len(lines) > 1 or count == 1 else text.split(",")
    names = [part.strip() for part in parts]
    written = [name for name in names if name]
    return names if written and len(written) != count and len(names) <= count else written


def check_names(names: Sequence[str]) -> list[str]:
    """The names, if all differ as file names, where upper and lower case may be the same.

    Raises:
        OmniAlphaError: otherwise.
    """
    seen = set()
    for name in names:
        if (key := _key(name)) in seen:
            short = shorten(_plain(name), 80)
            raise OmniAlphaError(f"Two layers would share the file name '{short}'. Give each its own name.")
        seen.add(key)
    return list(names)


def distinct(names: Iterable[str]) -> list[str]:
    """Names as files may repeat or lack them, made distinct: "layer", "layer 2", ..."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        name = shorten(" ".join(str(name).split()), MAX_BYTES - _SPARE) or "layer"
        number, candidate = 1, name
        while _key(candidate) in taken:
            number += 1
            candidate = f"{name} {number}"
        taken.add(_key(candidate))
        found.append(candidate)
    return found


def file_name(name: str, before: str = "", after: str = "") -> str:
    """A file's name with a layer's name in it, as every common system takes it.

    Separators and control characters become "_", dots and spaces at the ends go, names that Windows keeps for devices
    get a "_" in front, and what exceeds 255 bytes of UTF-8 is cut off the layer's name, at a character's border.

    Args:
        name: the layer's.
        before, after: what stands around it, with the ending; kept as it is.

    Raises:
        OmniAlphaError: there is no room left for the name.
    """
    room = MAX_BYTES - len((before + after).encode())
    if room < 1:
        raise OmniAlphaError(
            f"The file name '{shorten(before, 40)}...' is too long: {MAX_BYTES} bytes are the most, the layer's name "
            f"and the ending included. Choose a shorter one."
        )
    plain = _plain(name)
    if is_reserved(f"{before}{plain}{after}"):
        plain = f"_{plain}"
    return f"{before}{shorten(plain, room).rstrip('. ') or '_'}{after}"


def is_reserved(name: str) -> bool:
    """Does Windows keep this file name for a device, as it does "con.png"?"""
    return bool(_RESERVED.fullmatch(name.strip()))


def shorten(text: str, limit: int) -> str:
    """`text`, at most `limit` bytes of UTF-8 of it, cut at a character's border."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _key(name: str) -> str:
    """What is the same for two names that some file system takes for one."""
    return unicodedata.normalize("NFC", _plain(name)).casefold()


def _plain(name: str) -> str:
    return _FORBIDDEN.sub("_", name).strip(". ") or "_"


def arrange_names(names: Sequence[str], order: Sequence[Sequence[int]]) -> list[str]:
    """The names that go with `arrange`; merged layers join theirs."""
    return [" + ".join(names[number] for number in numbers) for numbers in order]
