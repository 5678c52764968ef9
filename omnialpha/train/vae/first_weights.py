"""A start for a small VAE: before any training, the first latents already carry the local mean of R, G, B and alpha.

A VAE of this size that starts at random learns brightness first and leaves colour at blue and orange for thousands of
steps. Routing the channels through the network by hand skips that stage. The rest of the network stays random.

Two obstacles lie on the way, and both have an exact answer. A residual block adds to its input, so shrinking its branch
leaves the carried channels nearly as they are. The last normalisation divides by the norm over channels, so a large
constant channel makes that norm nearly constant; and SiLU is undone by carrying each value with both signs, since
silu(x) - silu(-x) = x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ANCHOR = 8.0  # the constant channel before the last normalisation, large beside values in [-1, 1]
BRANCH = 0.25  # residual branches start at a quarter of their usual size


def narrowest(channels: int) -> int:
    """The least base width: each channel with both signs, a constant one, and a few to learn with."""
    return 2 * channels + 4


def _carry(weight: torch.Tensor, count: int, kernel: torch.Tensor, rows: int = 0, sign: float = 1.0) -> None:
    """Make `count` output channels from `rows` on read input channels 0, 1, ... through `kernel` alone."""
    weight[rows : rows + count] = 0
    for channel in range(count):
        weight[rows + channel, channel] = sign * kernel


def _last_tap(kernel_2d: torch.Tensor) -> torch.Tensor:
    """A 2D kernel as a causal 3D one: a single frame meets only the last of the three temporal taps."""
    kernel = torch.zeros(3, *kernel_2d.shape)
    kernel[-1] = kernel_2d
    return kernel


def _centre(value: float = 1.0) -> torch.Tensor:
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = value
    return _last_tap(kernel)


def _resamplers(blocks: Any, name: str) -> list[Any]:
    holders: list[Any] = [getattr(block, "upsamplers", None) if name == "up" else block for block in blocks]
    holders = [holder[0] if isinstance(holder, nn.ModuleList) else holder for holder in holders]
    return [holder.resample[1] for holder in holders if hasattr(holder, "resample")]


def _route(convs: list[Any], count: int, kernel: torch.Tensor, anchor: float) -> None:
    """Carry through every resampling; the last one also prepares the signs and the anchor for the normalisation."""
    for index, conv in enumerate(convs):
        _carry(conv.weight, count, kernel)
        conv.bias[:count] = 0
        if index == len(convs) - 1:
            _carry(conv.weight, count, kernel, rows=count, sign=-1.0)
            conv.bias[count : 2 * count] = 0
            conv.weight[-1] = 0
            conv.bias[-1] = anchor


def _read_out(conv: Any, norm: Any, count: int, anchor: float) -> None:
    """Undo the normalisation and the SiLU: output k = value k."""
    gain = anchor / norm.gamma.numel() ** 0.5
    conv.weight[:count] = 0
    conv.bias.zero_()
    for channel in range(count):
        conv.weight[channel, channel] = _centre(gain)
        conv.weight[channel, count + channel] = _centre(-gain)


@torch.no_grad()
def start_with_means(vae: Any) -> Any:
    """Rewrite a freshly built diffusers `AutoencoderKLQwenImage` for RGB or RGBA in place; returns it.

    Its base width has to be at least `narrowest` of its channels.
    """
    count = vae.encoder.conv_in.weight.shape[1]
    module: Any
    for module in vae.modules():
        if hasattr(module, "conv2") and hasattr(module, "conv_shortcut"):  # residual block
            module.conv2.weight.mul_(BRANCH)
            module.conv2.bias.zero_()
            if hasattr(module.conv_shortcut, "weight"):
                _carry(module.conv_shortcut.weight, count, torch.ones(1, 1, 1))
                module.conv_shortcut.bias[:count] = 0
        elif hasattr(module, "to_qkv"):  # attention block
            module.proj.weight.mul_(BRANCH)
            module.proj.bias.zero_()
        elif tuple(getattr(module, "kernel_size", ())) == (3, 3, 3):
            module.weight[:, :, :2] = 0  # taps that a single frame never meets

    encoder, decoder = vae.encoder, vae.decoder
    for stem in (encoder.conv_in, decoder.conv_in):
        _carry(stem.weight, count, _centre())
        stem.bias[:count] = 0

    halve = torch.zeros(3, 3)
    halve[:2, :2] = 0.25  # the padding is below and to the right, so this is the mean of each 2x2
    _route(_resamplers(encoder.down_blocks, "down"), count, halve, 2 * ANCHOR)
    encoder.conv_out.weight[vae.config.z_dim :].mul_(0.1)
    _read_out(encoder.conv_out, encoder.norm_out, count, 2 * ANCHOR)
    encoder.conv_out.bias[vae.config.z_dim :] = -3  # log variance: little noise at first

    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        conv.bias.zero_()

    ramp = torch.tensor([0.25, 0.5, 0.25])
    _route(_resamplers(decoder.up_blocks, "up"), count, ramp[:, None] * ramp, ANCHOR)
    decoder.conv_out.weight.mul_(0.2)
    _read_out(decoder.conv_out, decoder.norm_out, count, ANCHOR)
    return vae
