"""Single frames through Qwen-Image's video VAE: a 2D fast path and exact tiling.

Layers are single frames. For one frame the causal 3x3x3 convolutions see zeros at all earlier times, so only their last
temporal tap matters and they are plain 2D convolutions; the temporal resampling is skipped altogether.

Large pictures are tiled where tiling is exact. Attention looks at the whole picture, but it sits at an eighth of its
size, where even a large picture is small: that part runs whole. The costly rest consists of small convolutions and
per-pixel norms, so a tile with a margin as wide as they can see gives the very values of the whole picture, and there
are no seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLQwenImage

# Pixels per latent, each way.
SCALE = 8

# Above this many pixels (about 1450 x 1450) a picture is tiled unless told otherwise: the full-size VAE takes about 3
# GB per megapixel to decode in float32.
TILE_ABOVE = 2**21

# Side of a tile's core, in latents (1024 pixels).
TILE = 128

# How far the convolutions of each half see, in latents, rounded up. Encoder: 1 + 4 convolutions per level and up to 2
# for halving, each 1, 2, 4 or 8 pixels wide: 75 pixels. Decoder: 6 convolutions per level and 1 after doubling, each 1,
# 1/2, 1/4 or 1/8 of a latent: 12.25 latents.
ENCODER_MARGIN = 10
DECODER_MARGIN = 13


def single_frame(vae: AutoencoderKLQwenImage) -> AutoencoderKLQwenImage:
    """Put the 2D fast path on this VAE, in place; the class and other instances stay as they are.

    `encode` and `decode` of a single frame (T = 1, any batch) then give the same values in half the time, and tile
    above `TILE_ABOVE` pixels (always where the VAE's `enable_tiling()` was called). Longer videos take diffusers' own
    path.

    Returns:
        The same VAE.
    """
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d

    for module in vae.modules():
        # A forward on the instance is ours already, or an offloading hook's that must not be lost.
        if isinstance(module, QwenImageCausalConv3d) and "forward" not in vars(module):
            module.forward = MethodType(_convolve, module)
    vae._encode = MethodType(_encode, vae)
    vae._decode = MethodType(_decode, vae)
    return vae


def _convolve(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """Forward of a causal convolution, [B, C, T, H, W] -> [B, C', T', H', W']."""
    padding, taps = self._padding, self.kernel_size[0]
    # A convolution that is not padded back to its full reach does not see its only frame through the last tap.
    if cache_x is not None or x.shape[2] != 1 or padding[4] != taps - 1:
        return type(self).forward(self, x, cache_x)
    weight, stride = self.weight[:, :, -1], self.stride[1:]
    return F.conv2d(x[:, :, 0], weight, self.bias, stride, (padding[2], padding[0]))[:, :, None]


def _encode(self, x: Tensor) -> Tensor:
    """Moments [B, 32, T, h, w] of pictures [B, 4, T, H, W]; stands in for the VAE's own method."""
    if x.shape[2] != 1:
        return type(self)._encode(self, x)
    encoder, (height, width) = self.encoder, x.shape[-2:]

    def down(part: Tensor) -> Tensor:
        part = encoder.conv_in(part)
        for block in encoder.down_blocks:
            part = block(part)
        return part

    # Pixels beyond the last whole latent have no tile of their own.
    whole = height % SCALE == width % SCALE == 0
    if whole and _tiles(self, height * width):
        x = run_tiled(down, x, (height // SCALE, width // SCALE), ENCODER_MARGIN, TILE, scale_in=SCALE)
    else:
        x = down(x)
    x = encoder.nonlinearity(encoder.norm_out(encoder.mid_block(x)))
    return self.quant_conv(encoder.conv_out(x))


def _decode(self, z: Tensor, return_dict: bool = True):
    """Pictures [B, 4, T, H, W] in [-1, 1] of latents [B, 16, T, h, w]; stands in for the VAE's own method."""
    if z.shape[2] != 1:
        return type(self)._decode(self, z, return_dict)
    from diffusers.models.autoencoders.vae import DecoderOutput

    decoder, (h, w) = self.decoder, z.shape[-2:]

    def up(part: Tensor) -> Tensor:
        for block in decoder.up_blocks:
            part = block(part)
        return decoder.conv_out(decoder.nonlinearity(decoder.norm_out(part)))

    x = decoder.mid_block(decoder.conv_in(self.post_quant_conv(z)))
    tiled = _tiles(self, h * w * SCALE**2)
    x = run_tiled(up, x, (h, w), DECODER_MARGIN, TILE, scale_out=SCALE) if tiled else up(x)
    x = x.clamp(-1, 1)
    return DecoderOutput(sample=x) if return_dict else (x,)


@contextmanager
def tiling(vae: AutoencoderKLQwenImage, tile: bool | None) -> Iterator[None]:
    """Within it, a VAE with the fast path tiles always (True), never (False), or as it would without (None)."""
    before = vars(vae).get("_force_tiles")
    vars(vae)["_force_tiles"] = before if tile is None else tile
    try:
        yield
    finally:
        vars(vae)["_force_tiles"] = before


def _tiles(vae: AutoencoderKLQwenImage, pixels: int) -> bool:
    force = vars(vae).get("_force_tiles")
    return vae.use_tiling or pixels > TILE_ABOVE if force is None else force


def run_tiled(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    grid: tuple[int, int],
    margin: int,
    tile: int,
    scale_in: int = 1,
    scale_out: int = 1,
) -> Tensor:
    """`run(x)`, computed tile by tile; exact if no output of `run` sees further than `margin`.

    Args:
        run: maps [..., a*scale_in, b*scale_in] to [..., a*scale_out, b*scale_out].
        x: [..., grid[0]*scale_in, grid[1]*scale_in].
        grid: (rows, columns) of cells that the picture is divided into; a cell is a latent.
        margin: cells that each tile sees beyond its core.
        tile: cells per core at most, each way.
        scale_in: values of x per cell, each way.
        scale_out: values of the result per cell, each way.
    """
    result = None
    for rows in _cores(grid[0], tile):
        for columns in _cores(grid[1], tile):
            window = [_grown(core, margin, cells) for core, cells in zip((rows, columns), grid, strict=True)]
            part = run(x[(..., *(_scaled(span, scale_in) for span in window))])
            inside = [_shifted(core, -span.start) for core, span in zip((rows, columns), window, strict=True)]
            if result is None:
                result = part.new_empty(*part.shape[:-2], *(cells * scale_out for cells in grid))
            core = tuple(_scaled(span, scale_out) for span in (rows, columns))
            result[(..., *core)] = part[(..., *(_scaled(span, scale_out) for span in inside))]
    assert result is not None, "a grid has cells"
    return result


def _cores(cells: int, tile: int) -> list[slice]:
    """The fewest spans of at most `tile` that cover `cells`, of nearly equal length."""
    count = -(-cells // tile)
    edges = [cells * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _grown(span: slice, margin: int, cells: int) -> slice:
    return slice(max(0, span.start - margin), min(cells, span.stop + margin))


def _shifted(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
