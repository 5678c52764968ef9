"""Opening picture files: the formats that we name, and no other.

Pillow tells a format by a file's content and knows some forty, most of which nobody looks after: each is a way in for
whoever may hand over a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import os

    from PIL import Image

# Pillow's name of a format -> endings of its files. Formats without a mark at their beginning come last. JPEG includes
# cameras' several pictures in one file (MPO).
FORMATS = {
    "PNG": (".png",), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"), "JPEG": (".jpg", ".jpeg"), "AVIF": (".avif",),
    "BMP": (".bmp",), "GIF": (".gif",), "JPEG2000": (".jp2",), "TGA": (".tga",),
}  # fmt: skip
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
WITH_ALPHA = tuple(ending for name, endings in FORMATS.items() if name not in ("JPEG", "BMP") for ending in endings)


def open_picture(source: str | os.PathLike | BinaryIO) -> Image.Image:
    """A picture file, or its bytes, as Pillow opens it: recognised, not decoded yet.

    Raises:
        OSError: it cannot be read, or is in none of `FORMATS`. Pillow raises about anything on damaged files.
    """
    from PIL import Image

    Image.init()  # Pillow's own releases differ in what they were built with
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
