"""Latents as tokens and back.

The model sees one sequence `[text | target_1 ... target_m | input_1 ... input_n]`; each layer's latent is cut into 2x2
patches of 64 values (paper section 3.2).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..errors import OmniAlphaError


def patchify(latent: Tensor) -> Tensor:
    """Latent [..., C, h, w] -> tokens [..., (h/2)*(w/2), 4*C], row by row.

    Within a token the order is channel, row, column of its 2x2 patch.

    Raises:
        OmniAlphaError: h or w is odd.
    """
    h, w = latent.shape[-2:]
    if h % 2 or w % 2:
        raise OmniAlphaError(
            f"Latents are cut into 2x2 patches, so their sides must be even, got {h}x{w}: use pictures whose sides are "
            f"multiples of 16 pixels."
        )
    return rearrange(latent, "... c (row y) (column x) -> ... (row column) (c y x)", y=2, x=2)


def unpatchify(tokens: Tensor, h: int, w: int) -> Tensor:
    """Tokens [..., (h/2)*(w/2), 4*C] -> latent [..., C, h, w]; undoes `patchify`.

    Raises:
        OmniAlphaError: the number of tokens is not that of an h x w latent.
    """
    count, values = tokens.shape[-2:]
    if h % 2 or w % 2 or count != (h // 2) * (w // 2) or values % 4:
        raise OmniAlphaError(f"{count} tokens of {values} values do not make a latent of {h}x{w}.")
    return rearrange(tokens, "... (row column) (c y x) -> ... c (row y) (column x)", row=h // 2, y=2, x=2)


def pack(targets: Tensor, inputs: list[Tensor]) -> tuple[Tensor, list[list[tuple[int, int, int]]]]:
    """All layers as one token sequence, targets first.

    Args:
        targets: [B, 16, m, h, w].
        inputs: latents [B, 16, a, b], sizes may differ.

    Returns:
        Tokens [B, N, 64] and diffusers' `img_shapes`: per sample a list of (1, height, width) in patches.

    Raises:
        OmniAlphaError: a latent with odd sides.
    """
    layers = [*targets.unbind(2), *inputs]
    shapes = [(1, layer.shape[-2] // 2, layer.shape[-1] // 2) for layer in layers]
    return torch.cat([patchify(layer) for layer in layers], dim=1), [list(shapes) for _ in range(targets.shape[0])]


def unpack(tokens: Tensor, m: int, h: int, w: int) -> Tensor:
    """The target latents out of a token sequence.

    Args:
        tokens: [B, N, 64], targets first; tokens of inputs behind them are ignored.
        m: number of targets.
        h: latent height of the targets.
        w: latent width.

    Returns:
        [B, 16, m, h, w].

    Raises:
        OmniAlphaError: fewer tokens than the targets need.
    """
    count = m * (h // 2) * (w // 2)
    if tokens.shape[1] < count:
        raise OmniAlphaError(f"{m} layers of {h}x{w} need {count} tokens, got {tokens.shape[1]}.")
    layers = rearrange(tokens[:, :count], "b (m count) values -> b m count values", m=m)
    return rearrange(unpatchify(layers, h, w), "b m c h w -> b c m h w")
