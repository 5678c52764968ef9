"""Photoshop's PSD, through psd-tools.

Written are RGB documents of 8 bits: a pixel layer per layer, of the canvas' size, blend mode normal, with its alpha as
the layer's own transparency (not as a layer mask), and the merged picture that viewers show. The structures of
`psd_tools.psd` are filled in directly: they have been the same in all releases, and its drawing interface turns alpha
into a mask or the merged picture black, depending on the release and on what else is installed.

Format: "Adobe Photoshop File Formats Specification", sections "Layer and Mask Information" and "Image Data".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import BinaryIO
from xml.sax.saxutils import escape

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..errors import OmniAlphaError, OmniAlphaWarning
from ..layers.compositing import flatten, over_colour
from .names import distinct
from .packages import need
from .pictures import to_uint8
from .stack import Stack, check_canvas, place, with_opacity

MAX_SIDE = 30000  # pixels, of the format
NAMESPACE = "urn:comfyui-omnialpha:1.0:"
_MODES = ("RGB", "GRAYSCALE")


def write_psd(stack: Stack, file: BinaryIO, text: Mapping[str, str] | None = None) -> None:
    """Writes a layered PSD.

    Args:
        stack: the layers; values are rounded to 8 bits.
        file: open for writing.
        text: entries for the file's XMP metadata, as elements of the namespace `NAMESPACE`.

    Raises:
        OmniAlphaError: a side beyond the format's 30000 pixels, or psd-tools is not installed.
    """
    need("psd_tools")
    from psd_tools.constants import ColorMode, Compression, Resource
    from psd_tools.psd import PSD
    from psd_tools.psd.header import FileHeader
    from psd_tools.psd.image_data import ImageData
    from psd_tools.psd.image_resources import ImageResource, ImageResources

    height, width = stack.size
    if max(height, width) > MAX_SIDE:
        raise OmniAlphaError(f"PSD files go up to {MAX_SIDE} pixels a side; the layers are {width}x{height}. Use ora.")
    header = FileHeader(version=1, channels=4, height=height, width=width, depth=8, color_mode=ColorMode.RGB)
    resources = ImageResources.new()
    if text:
        resources[Resource.XMP_METADATA] = ImageResource(key=Resource.XMP_METADATA, data=_xmp(text))
    merged = ImageData(Compression.RLE)
    merged.set_data(_merged_planes(stack), header)
    document = PSD(
        header=header, image_resources=resources, layer_and_mask_information=_layers(stack), image_data=merged
    )
    document.write(file)


def read_psd(path, hidden: bool = False) -> Stack:
    """Reads a PSD or PSB file; groups are opened up, opacities, fill opacities and layer masks go into alpha.

    What cannot be kept is said in an `OmniAlphaWarning`: other blend modes than normal, clipping, layers without
    pixels of their own (adjustments, fills) and effects.

    Args:
        path: the file.
        hidden: read layers that are switched off, too.

    Raises:
        OmniAlphaError: not a PSD, damaged, too large, neither RGB nor greyscale, or no visible layer.
    """
    psd_tools = need("psd_tools")
    try:
        psd = psd_tools.PSDImage.open(path)
        return _read(psd, path, hidden)
    except (OmniAlphaError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise OmniAlphaError(f"There is no PSD file at {path}.") from error
    except Exception as error:  # psd-tools' parsers raise about anything on damaged files
        raise OmniAlphaError(
            f"{path} is not a PSD file that can be read, or it is damaged ({type(error).__name__}: {error})."
        ) from error


def _layers(stack: Stack):
    """The section with all layers. A negative count says that the merged picture's fourth channel is its alpha."""
    from psd_tools.constants import ChannelID, Compression, Tag
    from psd_tools.psd.layer_and_mask import (
        ChannelData,
        ChannelDataList,
        ChannelImageData,
        ChannelInfo,
        GlobalLayerMaskInfo,
        LayerAndMaskInformation,
        LayerInfo,
        LayerRecord,
        LayerRecords,
    )
    from psd_tools.psd.tagged_blocks import TaggedBlocks

    height, width = stack.size
    records, pixels = [], []
    for layer, name in zip(stack.layers, stack.names, strict=True):
        red, green, blue, alpha = _planes(layer)
        info, channels = [], []
        for channel, plane in zip((-1, 0, 1, 2), (alpha, red, green, blue), strict=True):
            data = ChannelData(Compression.RLE)
            data.set_data(plane, width, height, 8)
            info.append(ChannelInfo(ChannelID(channel), len(data.data) + 2))
            channels.append(data)
        plain = name.encode("macroman", "replace").decode("macroman")  # for readers older than Unicode names
        record = LayerRecord(bottom=height, right=width, channel_info=info, name=plain, tagged_blocks=TaggedBlocks())
        record.tagged_blocks.set_data(Tag.UNICODE_LAYER_NAME, name)
        records.append(record)
        pixels.append(ChannelDataList(channels))
    return LayerAndMaskInformation(
        LayerInfo(-len(records), LayerRecords(records), ChannelImageData(pixels)),
        GlobalLayerMaskInfo(),
        TaggedBlocks(),
    )


def _planes(layer: Tensor) -> list[bytes]:
    """Red, green, blue and alpha, a byte per pixel."""
    return [plane.tobytes() for plane in rearrange(to_uint8(layer).cpu().numpy(), "h w c -> c h w")]


def _merged_planes(stack: Stack) -> list[bytes]:
    """The merged picture as Photoshop has it: colours over white, and alpha."""
    flat = flatten(stack.layers)
    return _planes(torch.cat([over_colour(flat), flat[3:]]))


def _xmp(text: Mapping[str, str]) -> bytes:
    names = {key: re.sub(r"\W", "_", key, flags=re.ASCII) for key in text}  # of elements, which take fewer characters
    entries = "".join(f"<omnialpha:{names[key]}>{escape(str(text[key]))}</omnialpha:{names[key]}>" for key in text)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:omnialpha="{NAMESPACE}">{entries}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _read(psd, path, hidden: bool) -> Stack:
    mode = psd.color_mode.name
    if mode not in _MODES:
        raise OmniAlphaError(f"{path} is in colour mode {mode}; expected RGB or greyscale. Convert it first.")
    canvas = (psd.height, psd.width)
    found = [layer for layer in psd.descendants() if not layer.is_group() and (hidden or layer.is_visible())]
    check_canvas(canvas, max(1, len(found)), str(path))
    if not list(psd.descendants()):
        return Stack([_as_layer(psd.numpy())], ["Background"])
    layers, names, lost = [], [], []
    for layer in found:
        array = layer.numpy()
        if array is None or 0 in array.shape:
            lost.append(f"'{layer.name}' has no pixels of its own ({layer.kind}) and is left out")
            continue
        lost += _losses(layer)
        pixels = place(_as_layer(array), layer.left, layer.top, canvas)
        pixels = torch.cat([pixels[:3], pixels[3:] * _mask(layer, canvas)])
        layers.append(with_opacity(pixels, _opacity(layer)))
        names.append(layer.name)
    if lost:
        warnings.warn(f"{path}: {'; '.join(lost)}.", OmniAlphaWarning, stacklevel=3)
    if not layers:
        raise OmniAlphaError(f"{path} has no visible layer with pixels. Switch one on, or read hidden layers too.")
    return Stack(layers, distinct(names))


def _as_layer(array: np.ndarray) -> Tensor:
    """psd-tools' [H, W, C] floats -> [4, H, W]; C is 1 or 3 colours, with alpha or without."""
    pixels = torch.from_numpy(np.ascontiguousarray(rearrange(array, "h w c -> c h w"), np.float32)).clamp(0, 1)
    if len(pixels) < 3:
        pixels = torch.cat([pixels[:1].expand(3, -1, -1), pixels[1:]])
    return pixels[:4] if len(pixels) >= 4 else torch.cat([pixels, torch.ones_like(pixels[:1])])


def _mask(layer, canvas) -> Tensor:
    """[1, H, W]: the layer's mask where it has one that is switched on, else ones."""
    ones = torch.ones(1, *canvas)
    mask = layer.mask if layer.has_mask() else None
    if mask is None or mask.disabled:
        return ones
    around = mask.background_color / 255
    array = layer.numpy("mask")
    if array is None or 0 in array.shape:
        return ones * around
    plane = torch.from_numpy(np.ascontiguousarray(array[..., 0], np.float32))[None]
    return place(plane - around, mask.left, mask.top, canvas) + around


def _opacity(layer) -> float:
    """Of the layer, its fill and all groups around it."""
    from psd_tools.constants import Tag

    fill = layer.tagged_blocks.get_data(Tag.BLEND_FILL_OPACITY, 255)
    opacity = (int(getattr(fill, "value", fill)) if fill is not None else 255) / 255
    while hasattr(layer, "opacity"):
        opacity *= layer.opacity / 255
        layer = layer.parent
    return opacity


def _losses(layer) -> list[str]:
    """What of a layer cannot be kept, in words."""
    lost = []
    if layer.blend_mode.name not in ("NORMAL", "PASS_THROUGH"):
        lost.append(f"'{layer.name}' has blend mode {layer.blend_mode.name.lower()} and is read as normal")
    if layer.clipping:
        lost.append(f"'{layer.name}' is clipped to the layer below and is read whole")
    if layer.has_effects():
        lost.append(f"the effects of '{layer.name}' are left out")
    return lost
