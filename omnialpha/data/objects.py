"""RGBA objects with names: from a folder, from packages that anyone can install, or drawn from a font.

The micro checkpoint learns from Microsoft's Fluent 3D emoji as the npm package `@lobehub/fluent-emoji-3d` ships them
(MIT, 256 px WebP with soft alpha), named by `unicode-emoji-json` (MIT):

    npm install @lobehub/fluent-emoji-3d unicode-emoji-json
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import OmniAlphaError
from ..files.opening import WITH_ALPHA, open_picture
from ..json_files import read_json
from .captions import Captions

T = TypeVar("T")

IMAGES = "@lobehub/fluent-emoji-3d"
NAMES = "unicode-emoji-json"
# Letters and pictograms of the DejaVu fonts, each with a shape of its own.
GLYPHS = "ABCDEFGHJKMNPQRSTWXYZ23456789&@#%?$☀☁☂☃☄★☎☔☕☘☠☢☣☮☯☸☺☻☼☾♔♕♖♗♘♚♛♜♝♞♟♣♥♫♻⚀⚅⚐⚑⚒⚓⚔⚕⚖⚗⚘⚙⚛⚜⚡✂✆✈✉✌✍✎✒✗✪✻✿❀❄❆❖❤❦➤"
TYPESET = {"black", "white", "heavy", "sign", "suit"}  # in names of characters: says nothing about the thing shown
HELD_OUT_PERCENT = 15
TRIES = 20  # pictures in a row that cannot be read before a folder counts as broken
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
    """Every picture that can hold alpha in a folder and its subfolders, sorted by path, named as `Captions` says.

    Raises:
        OmniAlphaError: no such folder, none of its files is such a picture, or a caption cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OmniAlphaError(f"There is no folder {root}. Give the folder that holds the objects (RGBA pictures).")
    captions, paths = Captions(root), sorted(path for path in root.rglob("*") if path.suffix.lower() in WITH_ALPHA)
    if not paths:
        raise OmniAlphaError(f"{root} holds no picture with alpha; looked for {', '.join(WITH_ALPHA)} files.")
    splits = [split_by_hash(path.relative_to(root).as_posix()) for path in paths]
    return [ObjectFile(captions.of(path), split, path) for path, split in zip(paths, splits)]


def glyph_objects() -> list[ObjectFile]:
    """Letters and pictograms of the DejaVu fonts that matplotlib brings: flat objects, a style micro never saw."""
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise OmniAlphaError("Objects from a font need matplotlib: pip install matplotlib") from error
    fonts = Path(get_data_path()) / "fonts/ttf"
    words = {char: unicodedata.name(char).lower().split() for char in GLYPHS}
    names = {char: " ".join(word for word in text if word not in TYPESET) for char, text in words.items()}
    names |= {char: f"letter {char}" if char.isalpha() else f"number {char}" for char in GLYPHS if char.isalnum()}
    return [
        ObjectFile(name, "test", fonts / ("DejaVuSans-Bold.ttf" if char.isascii() else "DejaVuSans.ttf"), char)
        for char, name in names.items()
    ]


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
    for emoji, entry in read_json(table, advice=f"Install the data again with: npm install {IMAGES} {NAMES}").items():
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
        with open_picture(entry.path) as image:
            pixels, transparent = image.convert("RGBA"), image.has_transparency_data
    except Exception as error:  # PIL's readers raise about anything on damaged files
        raise OmniAlphaError(f"{entry.path} cannot be read as a picture: {error}") from error
    if not transparent:
        raise OmniAlphaError(f"{entry.path} has no alpha: every object needs a transparent surround.")
    return pixels


def _draw_glyph(entry: ObjectFile) -> Image.Image:
    """One character in flat colours of its own, every other one with an outline."""
    rng = np.random.default_rng(ord(entry.glyph))
    colours = [tuple(int(value) for value in rng.integers(30, 256, 3)) for _ in range(2)]
    outline = int(rng.integers(2)) * 14
    font = ImageFont.truetype(str(entry.path), 360)
    side = 640
    mask, inner = Image.new("L", (side, side)), Image.new("L", (side, side))
    for canvas, stroke in ((mask, outline), (inner, 0)):
        pen = ImageDraw.Draw(canvas)
        pen.text((side / 2, side / 2), entry.glyph, fill=255, font=font, anchor="mm", stroke_width=stroke)
    inside, around = (Image.new("RGB", (side, side), colour) for colour in colours)
    image = Image.composite(inside, around, inner)
    image.putalpha(mask)
    return image.resize((side // 2, side // 2), Image.Resampling.LANCZOS)


def load_object(entry: ObjectFile, size: int) -> np.ndarray:
    """One object cropped to its alpha and centred in a square.

    Returns:
        uint8 [size, size, 4], PREMULTIPLIED (safe to scale and rotate).

    Raises:
        OmniAlphaError: unreadable, without alpha, or nothing is visible in it.
    """
    image = open_object(entry)
    box = image.getchannel("A").point([255 if alpha > 8 else 0 for alpha in range(256)]).getbbox()
    if box is None:
        raise OmniAlphaError(f"{entry.path} shows nothing: its alpha is empty.")
    image = image.crop(box).convert("RGBa")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)


def pick(
    rng: np.random.Generator, count: int, load: Callable[[int], T], problems: set[str], index: int | None = None
) -> tuple[int, T]:
    """Number `index`, else one drawn by chance among `count`, and what `load` makes of it.

    What cannot be loaded is noted in `problems` and another one is drawn: one bad file among
    thousands must not end a build, nor change anything but the items that would have shown it.

    Raises:
        OmniAlphaError: `TRIES` in a row cannot be loaded.
    """
    for _ in range(TRIES):
        index = int(rng.integers(count)) if index is None else index
        try:
            return index, load(index)
        except OmniAlphaError as error:
            problem, index = str(error), None
            problems.add(problem)
    raise OmniAlphaError(f"{TRIES} pictures in a row cannot be used. The last one: {problem}")
