"""MSRoPE-BiL: rotary positions with a layer axis that extends both ways (paper section 3.2.2).

Every token has a position (z, y, x). In the paper the m target layers sit at z = -m ... -1, the n input layers at
z = 0 ... n-1 and the text at z >= n. Rotary attention sees differences only, so everything is shifted by m here: target
k at z = k, input j at z = m + j, text from z >= m + n. With that shift the table equals the one Qwen-Image-Edit was
trained with wherever that one keeps z >= n, and there is no upper or lower end to run into.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

AXES = ("bil", "2d")

Extent = tuple[int, int]


def layer_positions(targets: Sequence[Extent], inputs: Sequence[Extent], text_length: int, axis: str = "bil") -> Tensor:
    """Positions of all tokens, in the order text | targets | inputs.

    Within a layer, y and x are centred: a layer H patches high covers -(H - H//2) ... H//2 - 1, so layers of different
    sizes share their centre. Text token i lies on the diagonal (s+i, s+i, s+i), where s clears every layer both in the
    picture plane and along z: s = max(H//2 and W//2 over all layers, m + n).

    Args:
        targets: (H, W) of each target layer, in patches (16 pixels).
        inputs: (H, W) of each input layer, in patches.
        text_length: number of text tokens.
        axis: "bil", or "2d" for the ablation without a layer axis (all layers at z = 0).

    Returns:
        float32 [text_length + tokens, 3], columns (z, y, x).

    Raises:
        ValueError: unknown axis, or a layer without patches.
    """
    _check_axis(axis)
    layers = [*targets, *inputs]
    start = max([len(layers), *(side // 2 for layer in layers for side in layer)])
    text = (start + torch.arange(text_length, dtype=torch.float32))[:, None].expand(-1, 3)
    grids = [_layer_grid(z if axis == "bil" else 0, *extent) for z, extent in enumerate(layers)]
    return torch.cat([text, *grids])


def _layer_grid(z: int, height: int, width: int) -> Tensor:
    """[height*width, 3]: one layer's tokens in row-major order."""
    if height < 1 or width < 1:
        raise ValueError(f"A layer needs at least one patch per side, got {height}x{width}.")
    y = torch.arange(height, dtype=torch.float32) - (height - height // 2)
    x = torch.arange(width, dtype=torch.float32) - (width - width // 2)
    return torch.cartesian_prod(torch.tensor([float(z)]), y, x)


def rope_angles(positions: Tensor, axes_dim: Sequence[int], theta: float = 10000.0) -> Tensor:
    """Rotation angle of every frequency, in radians and not wrapped.

    Each axis turns its own share of a head: axis a with axes_dim[a] channels has axes_dim[a] / 2 frequencies
    theta^(-2i / axes_dim[a]).

    Args:
        positions: [rows, axes], float32.
        axes_dim: channels per axis, even numbers that add up to the head size.
        theta: base of the frequencies.

    Returns:
        float32 [rows, sum(axes_dim) / 2].

    Raises:
        ValueError: an odd share, or another number of axes than `positions` has.
    """
    if len(axes_dim) != positions.shape[-1] or any(dim % 2 for dim in axes_dim):
        raise ValueError(
            f"axes_dim must be {positions.shape[-1]} even numbers, one per position axis, got {tuple(axes_dim)}."
        )
    columns = positions.to(torch.float32).split(1, dim=-1)
    return torch.cat([column * _frequencies(dim, theta) for column, dim in zip(columns, axes_dim, strict=True)], dim=-1)


def _frequencies(dim: int, theta: float) -> Tensor:
    """[dim / 2] frequencies. Written in the operations diffusers uses, so that the table is bit for bit the same."""
    return 1.0 / torch.pow(theta, torch.arange(0, dim, 2).to(torch.float32).div(dim))


class LayerRope(nn.Module):
    """Drop-in for `QwenImageTransformer2DModel.pos_embed` that follows `layer_positions` for any number of layers.

    Targets and inputs need no telling apart: the sequence is targets then inputs, and z just counts up. It has no
    parameters or buffers, so `state_dict`, `.to(dtype)` and saving are untouched.

    Args:
        axes_dim: channels per axis (layer, y, x), as in the transformer's `axes_dims_rope`.
        theta: base of the frequencies.
        axis: "bil" or "2d", see `layer_positions`.
    """

    def __init__(self, axes_dim: Sequence[int], theta: float = 10000.0, axis: str = "bil"):
        super().__init__()
        _check_axis(axis)
        self.axes_dim = list(axes_dim)
        self.theta = theta
        self.axis = axis

    def forward(
        self,
        img_shapes: list,
        txt_seq_lens: int | list[int] | Tensor | None = None,
        device: torch.device | str | None = None,
        max_txt_seq_len: int | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Complex rotations for the layer tokens and the text tokens.

        Args:
            img_shapes: per sample the list of (1, H, W) in patches, targets first; the samples of a batch must agree.
            txt_seq_lens: how older releases of diffusers pass the text length(s).
            device: where the result is wanted.
            max_txt_seq_len: the text length as diffusers passes it since 0.36; goes before `txt_seq_lens`.

        Returns:
            complex64 [layer tokens, sum(axes_dim) / 2] and [text tokens, sum(axes_dim) / 2].

        Raises:
            ValueError: no text length, samples with different layers, or a shape of several frames.
        """
        extents = _extents(img_shapes)
        length = _text_length(txt_seq_lens if max_txt_seq_len is None else max_txt_seq_len)
        device = torch.device("cpu" if device is None else device)
        table = _rotations(extents, length, tuple(self.axes_dim), theta=self.theta, axis=self.axis, device=device)
        return table[length:], table[:length]

    def extra_repr(self) -> str:
        return f"axes_dim={self.axes_dim}, theta={self.theta}, axis={self.axis!r}"


def install_rope(transformer: Any, axis: str = "bil") -> Any:
    """Give a QwenImageTransformer2DModel layer positions, in place.

    Args:
        transformer: any module with Qwen-Image's `pos_embed` (which knows `axes_dim` and `theta`).
        axis: "bil" or "2d", see `layer_positions`.

    Returns:
        The same transformer.
    """
    stock = transformer.pos_embed
    transformer.pos_embed = LayerRope(stock.axes_dim, stock.theta, axis)
    return transformer


# A sampling run asks for two tables (with and without the prompt) a hundred times over. A table is 2 MB at full size.
@lru_cache(maxsize=8)
def _rotations(
    extents: tuple[Extent, ...],
    text_length: int,
    axes_dim: tuple[int, ...],
    *,
    theta: float,
    axis: str,
    device: torch.device,
) -> Tensor:
    """complex64 [text | layers, sum(axes_dim) / 2]."""
    # An inference tensor in the cache would break a later training step that needs it for its backward pass.
    with torch.inference_mode(False), torch.device("cpu"):
        angles = rope_angles(layer_positions(extents, (), text_length, axis), axes_dim, theta)
        return torch.polar(torch.ones_like(angles), angles).to(device)


def _extents(img_shapes: list) -> tuple[Extent, ...]:
    """(H, W) of each layer from diffusers' nested shapes."""
    samples = [[sample] if isinstance(sample, tuple) else list(sample) for sample in img_shapes]
    if not samples or any(sample != samples[0] for sample in samples):
        raise ValueError(f"All samples of a batch must have the same layers, got {img_shapes}.")
    if any(frames != 1 for frames, _, _ in samples[0]):
        raise ValueError(f"A layer is a single frame: expected shapes (1, H, W), got {samples[0]}.")
    return tuple((int(height), int(width)) for _, height, width in samples[0])


def _text_length(length: int | list[int] | Tensor | None) -> int:
    """One length from any of the forms that releases of diffusers use; a list gives the longest."""
    if length is None:
        raise ValueError("LayerRope needs the text length: pass max_txt_seq_len (or txt_seq_lens).")
    return max(int(one) for one in length) if isinstance(length, (list, tuple)) else int(length)


def _check_axis(axis: str) -> None:
    if axis not in AXES:
        raise ValueError(f"Unknown layer axis {axis!r}, expected one of {AXES}.")
