"""OpenRaster (.ora): a ZIP archive of PNG layers and a stack.xml, as Krita, GIMP, MyPaint and others open it.

Format: the OpenRaster specification, version 0.0.6 (baseline). In stack.xml the top layer comes first.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO
from xml.etree import ElementTree

from torch import Tensor

from ..errors import OmniAlphaError, OmniAlphaWarning
from ..layers.compositing import flatten
from ..layers.resizing import resize
from .names import distinct
from .pictures import MAX_PIXELS, decode_layer
from .png import write_png
from .stack import Stack, check_canvas, place, with_opacity

MIMETYPE = b"image/openraster"
THUMBNAIL = 256  # longest side, in pixels
_NORMAL = "svg:src-over"
_MAX_XML = 2**22  # bytes
_MAX_PNG = 8 * MAX_PIXELS  # bytes; 16-bit RGBA that does not compress
_MAX_DEPTH = 64  # nested groups


def write_ora(stack: Stack, file: BinaryIO, text: Mapping[str, str] | None = None) -> None:
    """Writes an OpenRaster file.

    Args:
        stack: the layers; values are rounded to 8 bits.
        file: open for writing.
        text: entries for the text chunks of the merged picture, mergedimage.png.
    """
    height, width = stack.size
    image = ElementTree.Element("image", version="0.0.6", w=str(width), h=str(height))
    inner = ElementTree.SubElement(image, "stack")
    sources = [f"data/layer{index}.png" for index in range(len(stack.layers))]
    for source, name in reversed(list(zip(sources, stack.names, strict=True))):
        attributes = {"name": name, "src": source, "x": "0", "y": "0", "opacity": "1.0", "visibility": "visible"}
        ElementTree.SubElement(inner, "layer", attributes | {"composite-op": _NORMAL})
    flat = flatten(stack.layers)
    # Uncompressed throughout: the type has to be (it is found at a fixed place), and PNG is compressed by itself.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("mimetype", MIMETYPE)
        archive.writestr("stack.xml", ElementTree.tostring(image, encoding="UTF-8", xml_declaration=True))
        for source, layer in zip(sources, stack.layers, strict=True):
            archive.writestr(source, _png(layer))
        archive.writestr("mergedimage.png", _png(flat, text))
        archive.writestr("Thumbnails/thumbnail.png", _png(_small(flat)))


def read_ora(path, hidden: bool = False) -> Stack:
    """Reads an OpenRaster file; nested stacks are opened up and opacities go into alpha.

    Layers with another blend mode than normal are read as normal, with an `OmniAlphaWarning`. Nothing is unpacked to
    disk, and names in the archive are looked up there alone.

    Args:
        path: the file.
        hidden: read layers that are switched off, too.

    Raises:
        OmniAlphaError: not an OpenRaster file, damaged, too large, a picture that is missing, or no visible layer.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path, hidden)
    except FileNotFoundError as error:
        raise OmniAlphaError(f"There is no OpenRaster file at {path}.") from error
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, OmniAlphaError):
            raise
        raise OmniAlphaError(f"{path} is not a readable OpenRaster file, or it is damaged ({error}).") from error


def _png(layer: Tensor, text: Mapping[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    write_png(layer, file, text)
    return file.getvalue()


def _small(layer: Tensor) -> Tensor:
    height, width = layer.shape[1:]
    scale = min(1.0, THUMBNAIL / max(height, width))
    return resize(layer, (max(1, round(height * scale)), max(1, round(width * scale))))


def _read(archive: zipfile.ZipFile, path, hidden: bool) -> Stack:
    if _member(archive, "mimetype", 1024, path).strip() != MIMETYPE:
        raise OmniAlphaError(f"{path} is a ZIP archive but not an OpenRaster file: its mimetype says something else.")
    image = _parse(_member(archive, "stack.xml", _MAX_XML, path), path)
    canvas = (_whole(image, "h", path), _whole(image, "w", path))
    found = [(node, opacity) for node, opacity, shown in _nodes(image, path) if hidden or shown]
    check_canvas(canvas, max(1, len(found)), str(path))
    layers, names, lost = [], [], []
    for node, opacity in reversed(found):  # the file has the top layer first
        name = node.get("name") or "layer"
        if (mode := node.get("composite-op", _NORMAL)) != _NORMAL:
            lost.append(f"'{name}' has blend mode {mode.removeprefix('svg:')} and is read as normal")
        source = node.get("src", "")
        pixels = decode_layer(_member(archive, source, _MAX_PNG, path), f"{path}: {source}")
        left, top = _whole(node, "x", path, 0), _whole(node, "y", path, 0)
        layers.append(with_opacity(place(pixels, left, top, canvas), opacity))
        names.append(name)
    if lost:
        warnings.warn(f"{path}: {'; '.join(lost)}.", OmniAlphaWarning, stacklevel=4)
    if not layers:
        raise OmniAlphaError(f"{path} has no visible layer. Switch one on, or read hidden layers too.")
    return Stack(layers, distinct(names))


def _member(archive: zipfile.ZipFile, name: str, limit: int, path) -> bytes:
    """One file of the archive, refused before it is unpacked where it says, or turns out, to be too large."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise OmniAlphaError(f"{path} lacks '{name}'. Is it an OpenRaster file, and complete?") from None
    with archive.open(info) as file:
        data = file.read(limit + 1) if info.file_size <= limit else b""
    if info.file_size > limit or len(data) > limit:
        raise OmniAlphaError(f"{path}: '{name}' unpacks to {info.file_size:,} bytes; expected at most {limit:,}.")
    return data


def _parse(data: bytes, path) -> ElementTree.Element:
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # entities that grow without bound
        raise OmniAlphaError(f"{path}: its stack.xml declares entities, which OpenRaster has no use for.")
    try:
        image = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise OmniAlphaError(f"{path}: its stack.xml is damaged ({error}).") from error
    if image.tag != "image":
        raise OmniAlphaError(f"{path}: its stack.xml holds <{image.tag}>; expected <image>.")
    return image


def _nodes(
    group: ElementTree.Element, path, opacity: float = 1.0, shown: bool = True, depth: int = 0
) -> Iterator[tuple[ElementTree.Element, float, bool]]:
    """(layer, its opacity, is it visible) as the file lists them; groups hand both down."""
    if depth > _MAX_DEPTH:
        raise OmniAlphaError(f"{path}: its groups are nested more than {_MAX_DEPTH} deep.")
    for node in group:
        if node.tag not in ("layer", "stack"):
            continue
        own = opacity * _opacity(node, path)
        visible = shown and node.get("visibility", "visible") != "hidden"
        if node.tag == "layer":
            yield node, own, visible
        else:
            yield from _nodes(node, path, own, visible, depth + 1)


def _opacity(node: ElementTree.Element, path) -> float:
    text = node.get("opacity", "1")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise OmniAlphaError(f"{path}: '{text}' is not an opacity; expected a number from 0 to 1.")
    return value


def _whole(node: ElementTree.Element, key: str, path, default: int | None = None) -> int:
    text = node.get(key)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise OmniAlphaError(f"{path}: <{node.tag}> has {key} = {text!r}; expected a whole number of pixels.") from None
