"""RGBA objects with names: from a folder, from packages that anyone can install, or drawn from a font.

The micro checkpoint learns from Microsoft's Fluent 3D emoji as the npm package `@lobehub/fluent-emoji-3d` ships them
(MIT, 256 px WebP with soft alpha), named by `unicode-emoji-json` (MIT):

    npm install @lobehub/fluent-emoji-3d unicode-emoji-json
"""

from __future__ import annotations

import json
import string
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import OmniAlphaError

IMAGES = "@lobehub/fluent-emoji-3d"
NAMES = "unicode-emoji-json"
PICTURES = (".png", ".webp", ".tif", ".tiff", ".gif", ".avif")  # formats that hold alpha
GLYPHS = string.ascii_uppercase + string.digits + "&@#%?!$*+=<>~{}"
HELD_OUT_PERCENT = 15
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
VARIATION = "fe0f"  # asks for the colourful form of a character; says nothing about what is drawn


@dataclass(frozen=True)
class ObjectFile:
    """One RGBA picture of an object: `name` in words, `split` "train" or "test".

    `glyph` is the character to draw where the object comes from a font; `path` then is the font.
    """

    name: str
    split: str
    path: Path
    glyph: str = ""


def base_code(code: str) -> str:
    """A code point sequence without skin tone and variation marks: every tone of one emoji shares it."""
    return "-".join(part for part in code.split("-") if part not in SKIN_TONES and part != VARIATION)


def split_by_hash(key: str) -> str:
    """ "test" for about 15 in 100 keys, always the same ones, "train" for the others."""
    return "test" if zlib.crc32(key.encode()) % 100 < HELD_OUT_PERCENT else "train"


def split_of(code: str) -> str:
    """The split of an emoji, by its base code: all skin tones of one emoji lie on the same side."""
    return split_by_hash(base_code(code))


def folder_objects(folder: Path | str) -> list[ObjectFile]:
    """Every picture that can hold alpha in a folder and its subfolders, sorted by path.

    Its name is the first line of a `.txt` file beside it, or the file's own name with `-` and `_` read as blanks.

    Raises:
        OmniAlphaError: no such folder, or none of its files is such a picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OmniAlphaError(f"There is no folder {root}. Give the folder that holds the objects (RGBA pictures).")
    found = []
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURES):
        note = path.with_suffix(".txt")
        lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
        name = lines[0].strip() if lines else path.stem.replace("-", " ").replace("_", " ").strip()
        found.append(ObjectFile(name, split_by_hash(path.relative_to(root).as_posix()), path))
    if not found:
        raise OmniAlphaError(f"{root} holds no picture with alpha; looked for {', '.join(PICTURES)} files.")
    return found


def glyph_objects() -> list[ObjectFile]:
    """Letters, digits and signs of the DejaVu font that matplotlib brings: flat objects, a style micro never saw."""
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise OmniAlphaError("Objects from a font need matplotlib: pip install matplotlib") from error
    font = Path(get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
    return [ObjectFile(f"letter {char}" if char.isalnum() else f"sign {char}", "test", font, char) for char in GLYPHS]


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


def open_object(entry: ObjectFile) -> Image.Image:
    """The picture of an object, RGBA.

    Raises:
        OmniAlphaError: the file cannot be read, or it has no alpha.
    """
    if entry.glyph:
        return _draw_glyph(entry)
    try:
        with Image.open(entry.path) as image:
            if not image.has_transparency_data:
                raise OmniAlphaError(f"{entry.path} has no alpha: every object needs a transparent surround.")
            return image.convert("RGBA")
    except OSError as error:
        raise OmniAlphaError(f"{entry.path} cannot be read as a picture: {error}") from error


def _draw_glyph(entry: ObjectFile) -> Image.Image:
    """One character in two colours of its own, lighter above than below."""
    rng = np.random.default_rng(zlib.crc32(entry.glyph.encode()))
    mask = Image.new("L", (512, 512))
    font = ImageFont.truetype(str(entry.path), 380)
    ImageDraw.Draw(mask).text((256, 256), entry.glyph, fill=255, font=font, anchor="mm")
    ramp = np.linspace(1, 0.6, 512, dtype=np.float32)[:, None, None] * rng.uniform(80, 255, 3)
    pixels = np.broadcast_to(ramp, (512, 512, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(mask)
    return image.resize((256, 256), Image.Resampling.LANCZOS)


def load_object(entry: ObjectFile, size: int) -> np.ndarray:
    """One object cropped to its alpha and centred in a square.

    Returns:
        uint8 [size, size, 4], PREMULTIPLIED (safe to scale and rotate).

    Raises:
        OmniAlphaError: unreadable, without alpha, or nothing is visible in it.
    """
    image = open_object(entry)
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise OmniAlphaError(f"{entry.path} shows nothing: its alpha is empty.")
    image = image.crop(box).convert("RGBa")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)
