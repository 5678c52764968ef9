"""RGBA objects with names, from packages that anyone can install.

The micro checkpoint learns from Microsoft's Fluent 3D emoji as the npm package `@lobehub/fluent-emoji-3d` ships them
(MIT, 256 px WebP with soft alpha), named by `unicode-emoji-json` (MIT):

    npm install @lobehub/fluent-emoji-3d unicode-emoji-json
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError

IMAGES = "@lobehub/fluent-emoji-3d"
NAMES = "unicode-emoji-json"
HELD_OUT_PERCENT = 15
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
VARIATION = "fe0f"  # asks for the colourful form of a character; says nothing about what is drawn


@dataclass(frozen=True)
class ObjectFile:
    """One RGBA picture of an object: `name` in words, `split` "train" or "test"."""

    name: str
    split: str
    path: Path


def base_code(code: str) -> str:
    """A code point sequence without skin tone and variation marks: every tone of one emoji shares it."""
    return "-".join(part for part in code.split("-") if part not in SKIN_TONES and part != VARIATION)


def split_of(code: str) -> str:
    """The split, "train" or "test", by a hash of the base code: all tones of one emoji lie on the same side."""
    return "test" if zlib.crc32(base_code(code).encode()) % 100 < HELD_OUT_PERCENT else "train"


def find_objects(node_modules: Path | str) -> list[ObjectFile]:
    """Every named emoji below a `node_modules` folder, sorted by code; one skin tone in five and one flag in four.

    Raises:
        OmniAlphaError: one of the two packages is not there; the message gives the command that installs them.
    """
    root = Path(node_modules)
    pictures, table = root / IMAGES / "assets", root / NAMES / "data-by-emoji.json"
    for needed in (pictures, table):
        if not needed.exists():
            raise OmniAlphaError(f"{needed} is missing. Install the data with: npm install {IMAGES} {NAMES}")
    names = {}
    for emoji, entry in json.loads(table.read_text(encoding="utf-8")).items():
        code = "-".join(f"{ord(char):04x}" for char in emoji)
        names[code.replace(f"-{VARIATION}", "")] = entry["name"].lower()
    found = []
    for path in sorted(pictures.glob("*.webp")):
        code = path.stem.lower()
        name = names.get(code.replace(f"-{VARIATION}", "")) or names.get(base_code(code))
        if not name:
            continue
        toned = SKIN_TONES & set(code.split("-"))
        # Five tones of every hand and person, and every flag there is, would drown the other objects.
        keep_one_in = 5 if toned else 4 if name.startswith("flag ") else 1
        if zlib.crc32(code.encode()) % keep_one_in == 0:
            found.append(ObjectFile(name, split_of(code), path))
    return found


def load_object(path: Path, size: int) -> np.ndarray:
    """One object cropped to its alpha and centred in a square.

    Returns:
        uint8 [size, size, 4], PREMULTIPLIED (safe to scale and rotate).

    Raises:
        OmniAlphaError: nothing is visible in the picture.
    """
    image = Image.open(path).convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise OmniAlphaError(f"{path} shows nothing: its alpha is empty.")
    image = image.crop(box).convert("RGBa")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)
