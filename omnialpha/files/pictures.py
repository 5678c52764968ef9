"""Layers from and to picture files and PIL images."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from ..checks import check_finite, check_layer, check_plane
from ..errors import OmniAlphaError
from ..layers.compositing import opaque
from .opening import FORMATS, open_picture
from .writing import write_over

# 8192 x 8192, a gigabyte as a float32 layer.
MAX_PIXELS = 2**26

# PIL cuts 16-bit colour to its high bytes: read the other way round it gives the low bytes. Grey with alpha has no such
# twin, but read as 8-bit RGBA it is (grey high, grey low, alpha high, alpha low). "N" is the machine's own byte order.
_GREY_ALPHA = "LA;16B"
_LOW_BYTES = {_GREY_ALPHA: "RGBA"}

POLARITIES = ("white", "black", "alpha")
for _mode in ("RGB;16", "RGBA;16"):
    _LOW_BYTES |= {_mode + "B": _mode + "L", _mode + "L": _mode + "B"}
    _LOW_BYTES[_mode + "N"] = _mode + ("B" if sys.byteorder == "little" else "L")


def read_layer(path: str | os.PathLike) -> Tensor:
    """A picture file as a layer.

    Reads the formats of `files.opening`, whatever the file is called: the first frame of animations, turned upright as
    its EXIF data says; grey, palette and CMYK pictures become RGB, missing alpha is 1, and 16-bit files keep their
    precision. Colour profiles are not applied.

    Args:
        path: the file.

    Returns:
        float32 [4, H, W] in [0, 1], straight alpha.

    Raises:
        OmniAlphaError: no such file, not a picture, damaged, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        raise OmniAlphaError(f"There is no picture file at {path}.")
    return _read(lambda: path, path)


def decode_layer(data: bytes, name: str) -> Tensor:
    """The bytes of a picture file as a layer; as `read_layer`, with `name` for the messages."""
    return _read(lambda: io.BytesIO(data), name)


def _read(source: Callable, name: str | Path) -> Tensor:
    """The picture that PIL finds at `source()`, as a layer."""
    image = _open(source(), name)
    rawmode = _deep_rawmode(image)
    image = _load(image, name)
    if rawmode is None:
        return from_pil(image)
    low: Any = _open(source(), name)  # PIL's opened files have tiles, its pictures in general have none
    low.tile = [(*tile[:3], _with_rawmode(tile[3], _LOW_BYTES[rawmode])) for tile in low.tile]
    return _deep_layer(image, _load(low, name), rawmode)


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image of any mode as a layer, without turning or cropping it.

    Returns:
        float32 [4, H, W] in [0, 1], straight alpha.

    Raises:
        OmniAlphaError: PIL cannot convert that mode to RGBA.
    """
    if image.mode.startswith(("I", "F")):
        return _layer_from_numbers(image)
    try:
        pixels = np.array(image.convert("RGBA"))
    except (ValueError, OSError) as error:
        raise OmniAlphaError(
            f"A picture of mode {image.mode} cannot be converted to RGBA ({error}). Save it as an RGB or RGBA PNG."
        ) from error
    return rearrange(torch.from_numpy(pixels), "h w c -> c h w").contiguous().to(torch.float32).div_(255)


def to_pil(layer: Tensor) -> Image.Image:
    """A layer as an 8-bit RGBA image, rounded.

    Raises:
        OmniAlphaError: not a layer, or it holds NaN or infinity.
    """
    return Image.fromarray(to_uint8(layer).cpu().numpy())


def to_uint8(layer: Tensor) -> Tensor:
    """A layer [4, H, W] as uint8 [H, W, 4], clamped to [0, 1] and rounded to the nearest step.

    Raises:
        OmniAlphaError: not a layer, or it holds NaN or infinity.
    """
    check_finite(check_layer(layer), "The layer")
    # Plane by plane, so that a large picture does not lie in memory several times over.
    return torch.stack([plane.clamp(0, 1).mul_(255).round_().to(torch.uint8) for plane in layer], dim=-1)


def write_layer(layer: Tensor, path: str | os.PathLike, text: Mapping[str, str] | None = None) -> None:
    """Write a layer as an 8-bit RGBA PNG, whole or not at all.

    The file is written beside its place and moved there when complete, so a full disk or an interrupt leaves what was
    there before.

    Args:
        layer: [4, H, W] in [0, 1], straight alpha; values are rounded to 8 bits.
        path: the file, replaced if it exists. Its folder must exist.
        text: entries for the PNG's text chunks, any Unicode.

    Raises:
        OmniAlphaError: not a layer, NaN in it, or the file cannot be written.
    """
    image = to_pil(layer)
    write_over(Path(path), lambda file: image.save(file, format="PNG", pnginfo=png_text(text)))


def png_text(text: Mapping[str, str] | None) -> PngImagePlugin.PngInfo:
    """Entries for a PNG's text chunks, any Unicode."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, str(value))
    return chunks


def _open(source, path: str | Path) -> Image.Image:
    """The first picture of a file, not yet decoded; messages call it `path`."""
    try:
        image = open_picture(source)
    except Image.DecompressionBombError as error:
        raise OmniAlphaError(f"{path} is too large: {error} {_limit()}") from error
    except Exception as error:  # PIL's readers raise about anything on damaged files
        raise OmniAlphaError(
            f"{path} is not a picture that can be read, or it is damaged ({error}). Expected one of: "
            f"{', '.join(FORMATS)}."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise OmniAlphaError(f"{path} is too large: {image.width}x{image.height} pixels. {_limit()}")
    return image


def _limit() -> str:
    return f"Expected at most {MAX_PIXELS:,} pixels; scale the picture down first."


def _load(image: Image.Image, path: str | Path) -> Image.Image:
    """The picture decoded and turned upright; its file is closed."""
    with image:
        try:
            image.load()
        except Exception as error:  # as in _open
            raise OmniAlphaError(
                f"{path} begins like a picture ({image.format}) but is damaged or cut off ({error}). "
                f"Fetch or export it again."
            ) from error
        with suppress(Exception):  # EXIF data that cannot be read costs the turn, not the picture
            ImageOps.exif_transpose(image, in_place=True)
    return image


def _deep_rawmode(image: Image.Image) -> str | None:
    """How PIL is about to unpack 16-bit colour, such as "RGBA;16B"; None for every other picture."""
    rawmodes = {_rawmode(tile[3]) for tile in getattr(image, "tile", [])}
    return rawmodes.pop() if len(rawmodes) == 1 and rawmodes <= _LOW_BYTES.keys() else None


def _rawmode(args) -> str | None:
    """The unpacking mode among a tile's decoder arguments, which are the mode alone or begin with it."""
    return (args[0] if args else None) if isinstance(args, tuple) else args


def _with_rawmode(args, rawmode: str):
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode


def _deep_layer(high: Image.Image, low: Image.Image, rawmode: str) -> Tensor:
    """A layer from the high and the low bytes of a 16-bit picture."""
    low_bytes = np.asarray(low)
    if rawmode == _GREY_ALPHA:
        grey_high, grey_low, alpha_high, alpha_low = rearrange(low_bytes, "h w c -> c h w")
        grey, alpha = _words(grey_high, grey_low), _words(alpha_high, alpha_low)
        return _from_words(np.stack([grey, grey, grey, alpha]))
    words = rearrange(_words(np.asarray(high), low_bytes), "h w c -> c h w")
    if len(words) == 3:
        words = np.concatenate([words, _key_alpha(words, high)[None]])
    return _from_words(words)


def _words(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return (high.astype(np.uint16) << 8) | low


def _key_alpha(words: np.ndarray, image: Image.Image) -> np.ndarray:
    """uint16 [H, W] alpha of a 16-bit picture [C, H, W]: 0 for the one colour a PNG may declare transparent."""
    key = image.info.get("transparency")
    if key is None:
        return np.full(words.shape[1:], 65535, np.uint16)
    shown = (words != np.reshape(key, (-1, 1, 1))).any(axis=0)
    return np.where(shown, 65535, 0).astype(np.uint16)


def _from_words(words: np.ndarray) -> Tensor:
    """uint16 [4, H, W] -> layer."""
    return torch.from_numpy(words.astype(np.float32)).div_(65535)


def _layer_from_numbers(image: Image.Image) -> Tensor:
    """A layer from PIL's modes with one number per pixel: 16 or 32-bit whole numbers, or floats."""
    numbers = np.asarray(image)[None]
    # Older releases of PIL give 16-bit grey as "I", and so do writers that put 16 bits into a wider type.
    if image.mode != "F" and numbers.max() <= 65535:
        words = numbers.clip(min=0).astype(np.uint16)
        return _from_words(np.concatenate([words, words, words, _key_alpha(words, image)[None]]))
    grey = numbers / (2**31 - 1) if image.mode == "I" else np.nan_to_num(numbers, nan=0.0, posinf=1.0, neginf=0.0)
    grey = torch.from_numpy(grey.astype(np.float32)).clamp(0, 1)
    return torch.cat([grey, grey, grey, torch.ones_like(grey)])


def as_layer(image, name: str = "The picture") -> torch.Tensor:
    """A layer [4, H, W] from a layer, an RGB tensor [3, H, W], a PIL image or a file's path.

    Raises:
        OmniAlphaError: none of these, unreadable, or NaN in it.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_layer(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if not isinstance(image, torch.Tensor):
        raise OmniAlphaError(f"{name} is a {type(image).__name__}, expected a tensor, a PIL image or a file's path.")
    layer = image.detach().to("cpu")
    if layer.ndim == 3 and layer.shape[0] == 3 and layer.is_floating_point():
        layer = opaque(layer)
    return check_finite(check_layer(layer, name), name).to(torch.float32).clamp(0, 1)


def as_plane(guide, polarity: str = "white") -> torch.Tensor:
    """A guide [H, W] in [0, 1] with 1 = object, from a plane, a layer, a PIL image or a file's path.

    Args:
        polarity: where the object is in a picture: "white" (brightness, transparent counts as black), "black" (the
            opposite) or "alpha" (opacity).

    Raises:
        OmniAlphaError: see `as_layer`; or an unknown polarity.
    """
    if polarity not in POLARITIES:
        raise OmniAlphaError(f"Unknown guide polarity '{polarity}', expected one of: {', '.join(POLARITIES)}.")
    if isinstance(guide, torch.Tensor) and guide.ndim == 2:
        plane = (
            check_finite(check_plane(guide.detach().to("cpu"), "The guide"), "The guide").to(torch.float32).clamp(0, 1)
        )
    else:
        layer = as_layer(guide, "The guide")
        plane = layer[3] if polarity == "alpha" else layer[:3].mean(dim=0) * layer[3]
    return 1 - plane if polarity == "black" else plane
