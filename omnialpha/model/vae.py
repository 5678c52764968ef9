"""The RGBA VAE: loading it from any file, and layers to latents and back, one at a time (paper section 3.2.1).

Convention: straight alpha, all four channels mapped from [0, 1] to [-1, 1]. Encoding takes the posterior's mean, never
a sample. Latents leave and enter normalised: (latent - latents_mean) / latents_std.

The key layouts and opaque initialisation are in `checkpoint.vae_keys`, the fast path for single frames in
`single_frame`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoint.vae_keys import (
    channels,
    check_statistics,
    opaque_initialise,
    read_statistics,
    to_diffusers,
)
from ..checkpoint.weights import load_tensors
from ..checks import check_finite, check_layer
from ..errors import OmniAlphaError
from .single_frame import SCALE, single_frame, tiling

if TYPE_CHECKING:
    from diffusers import AutoencoderKLQwenImage


def load_vae(path: str | os.PathLike, opaque_init: bool = False) -> AutoencoderKLQwenImage:
    """A VAE from a safetensors file, or from a folder with one, in either key layout.

    Its shape is read from the tensors. Only the latents' mean and deviation come from the `config.json` beside the
    file, and are Qwen-Image's where there is none.

    Args:
        path: file or folder.
        opaque_init: turn an RGB VAE into an RGBA one, see `opaque_initialise`.

    Returns:
        The VAE in float32 on the CPU, in eval mode, with the fast path of `single_frame`.

    Raises:
        OmniAlphaError: nothing there, unreadable, not this kind of VAE, or RGB without `opaque_init`.
    """
    path = Path(path)
    weights = load_tensors(path)
    try:
        if opaque_init and channels(weights) == (3, 3):
            weights = opaque_initialise(weights)
        return vae_from_weights(weights, read_statistics(path if path.is_dir() else path.parent))
    except OmniAlphaError as error:
        raise OmniAlphaError(f"{path}: {error}") from error


def vae_from_weights(
    weights: Mapping[str, Tensor], statistics: Mapping[str, list[float]] | None = None
) -> AutoencoderKLQwenImage:
    """A VAE from its tensors in either key layout, see `load_vae`.

    Args:
        weights: state dict in any floating point precision.
        statistics: `latents_mean` and `latents_std`, one number per latent channel; Qwen-Image's where absent.

    Raises:
        OmniAlphaError: not this kind of VAE, tensors missing or of the wrong shape, or not four channels.
    """
    from diffusers import AutoencoderKLQwenImage

    weights = {key: tensor.to(torch.float32) for key, tensor in to_diffusers(weights).items()}
    found = channels(weights)
    if found != (4, 4):
        raise OmniAlphaError(
            f"The VAE reads {found[0]} and writes {found[1]} channels; OmniAlpha needs one with 4 (RGBA). Use the "
            f"authors' rgba_vae"
            + (", or turn this RGB VAE into one with `python -m omnialpha convert-vae`." if found == (3, 3) else ".")
        )
    try:
        base_dim, z_dim = weights["encoder.conv_in.weight"].shape[0], weights["post_quant_conv.weight"].shape[0]
        stated: Mapping[str, Any] = check_statistics(statistics or {}, "The VAE", z_dim)
        with torch.device("meta"):
            vae = AutoencoderKLQwenImage(base_dim=base_dim, z_dim=z_dim, input_channels=4, **stated)
        vae.load_state_dict(weights, assign=True)
    except (KeyError, IndexError, RuntimeError) as error:
        raise OmniAlphaError(
            f"The tensors are not those of a complete Qwen-Image VAE: {_first_lines(error)}"
        ) from error
    return single_frame(vae.eval())


def _first_lines(error: Exception, count: int = 4) -> str:
    """The beginning of torch's list of mismatches, which can name hundreds."""
    return " ".join(line.strip()[:300] for line in str(error).splitlines()[:count])


def encode_layers(vae: AutoencoderKLQwenImage, layers: Iterable[Tensor], tile: bool | None = None) -> list[Tensor]:
    """Layers to normalised latents, one at a time: a batch would take that much more memory and be no faster.

    Args:
        vae: as `load_vae` gives it.
        layers: [4, H, W] in [0, 1], straight alpha, sides multiples of 8; sizes may differ.
        tile: True or False to force tiling, None to tile large pictures only. Tiling does not change the result.

    Returns:
        float32 [16, H/8, W/8] each, on the VAE's device.

    Raises:
        OmniAlphaError: not a layer, NaN in it, or a side that is not a multiple of 8,
            or NaN in what the VAE makes of it.
    """
    latents = []
    mean, std = _statistics_of(vae)
    with torch.no_grad(), tiling(single_frame(vae), tile):
        for index, layer in enumerate(layers):
            _check_picture(layer, f"Layer {index + 1} to encode")
            picture = layer.to(_device(vae), vae.dtype)[None, :, None] * 2 - 1
            encoded: Any = vae.encode(picture)  # diffusers' type allows for a tuple, which it is not unless asked for
            raw = encoded.latent_dist.mode()[0, :, 0].float()
            latents.append((check_finite(raw, f"Encoded layer {index + 1}") - mean) / std)
    return latents


def decode_layers(vae: AutoencoderKLQwenImage, latents: Iterable[Tensor], tile: bool | None = None) -> list[Tensor]:
    """Normalised latents to layers, one at a time.

    Args:
        vae: as `load_vae` gives it.
        latents: [m, 16, h, w], or any sequence of [16, h, w].
        tile: True or False to force tiling, None to tile large pictures only. Tiling does not change the result.

    Returns:
        float32 [4, 8h, 8w] each, in [0, 1], straight alpha, on the CPU.

    Raises:
        OmniAlphaError: another number of channels, or NaN in the latents or in what the VAE makes of them.
    """
    layers = []
    mean, std = _statistics_of(vae)
    with torch.no_grad(), tiling(single_frame(vae), tile):
        for index, latent in enumerate(latents):
            _check_latent(latent, len(mean), f"Latent {index + 1} to decode")
            raw = (latent.to(mean) * std + mean).to(vae.dtype)
            decoded: Any = vae.decode(raw[None, :, None])
            picture = decoded.sample[0, :, 0].float().cpu()
            layers.append(((check_finite(picture, f"Decoded layer {index + 1}") + 1) / 2).clamp(0, 1))
    return layers


def _statistics_of(vae: AutoencoderKLQwenImage) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the latents, float32 [16, 1, 1] each, on the device that the VAE runs on."""
    config: Any = vae.config
    values = (config.latents_mean, config.latents_std)
    mean, std = (torch.tensor(value, dtype=torch.float32, device=_device(vae))[:, None, None] for value in values)
    return mean, std


def _device(vae: AutoencoderKLQwenImage) -> torch.device:
    """Where the VAE computes, which for an offloaded one is not where it lies."""
    hook = getattr(vae, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return vae.device if device is None else torch.device(device)


def _check_picture(layer: Tensor, name: str) -> None:
    _, height, width = check_layer(check_finite(layer, name), name).shape
    if height % SCALE or width % SCALE:
        raise OmniAlphaError(
            f"{name} is {width}x{height} pixels (width x height); both sides must be multiples of {SCALE}. "
            f"Fit it first, see LayerSequence.fitted."
        )


def _check_latent(latent: Tensor, expected: int, name: str) -> None:
    if latent.ndim != 3 or latent.shape[0] != expected:
        raise OmniAlphaError(f"{name} must be [{expected}, height, width], got {list(latent.shape)}.")
    check_finite(latent, name)
