"""Layers through ComfyUI's VAE, one at a time.

ComfyUI takes a batch for Wan's VAE as the frames of a video: encoding keeps only the first, decoding blends them. One
layer at a time is right, and decodes faster. Latents here are RAW, as everywhere in ComfyUI: its samplers normalise
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from einops import rearrange
from torch import Tensor

from ...omnialpha.checkpoint.vae_keys import channels, opaque_initialise, to_wan
from ...omnialpha.checkpoint.weights import load_tensors
from ...omnialpha.errors import OmniAlphaError
from .images import to_image
from .precision import in_precision

PIXELS = 8  # per latent pixel
OVERLAP = 4  # of a tile's side, as a divisor
SMALLEST_TILE = 64  # pixels; below that a tile is mostly overlap


def load_vae(path: Path, source: str, opaque_init: bool = False) -> VAE:
    """A VAE from a file or a folder. It can load itself again, for copies on other devices.

    Args:
        path: safetensors in either key layout, or a folder with them.
        source: how messages call it.
        opaque_init: give an RGB VAE an alpha channel that decodes to opaque.

    Raises:
        OmniAlphaError: see `load_tensors` and `build_vae`.
    """
    vae = build_vae(load_tensors(path), source, opaque_init)
    vae.patcher.cached_patcher_init = (_load_patcher, (path, source, opaque_init))
    return vae


def _load_patcher(path: Path, source: str, opaque_init: bool, disable_dynamic: bool = False) -> ModelPatcher:
    vae = load_vae(path, source, opaque_init)
    if disable_dynamic:  # the patcher that takes the model over does not cast the file's dtype on the way
        vae.first_stage_model.to(vae.vae_dtype)
    return vae.patcher


def build_vae(tensors: Mapping[str, Tensor], source: str, opaque_init: bool = False) -> VAE:
    """A VAE from the tensors of an RGBA Qwen-Image VAE in either key layout.

    Args:
        tensors: diffusers or Wan keys; channels and widths are read from them.
        source: how messages call the file.
        opaque_init: give an RGB VAE an alpha channel that decodes to opaque.

    Raises:
        OmniAlphaError: another architecture, tensors missing, or an RGB VAE without `opaque_init`.
    """
    try:
        if channels(tensors) == (3, 3):
            if not opaque_init:
                raise OmniAlphaError(
                    "this is an RGB VAE, OmniAlpha needs four channels. Use its rgba_vae, or 'OmniAlpha Load VAE' with "
                    "opaque_init on, which adds an alpha channel that always decodes to opaque."
                )
            tensors = opaque_initialise(tensors)
        tensors, dtype = in_precision(to_wan(tensors))
        vae = VAE(sd=tensors, dtype=dtype)
        if missing := sorted(set(vae.get_sd()) - set(tensors)):  # ComfyUI would go on with random values
            raise OmniAlphaError(f"{len(missing)} tensors are missing, such as {missing[0]}. Fetch the file again.")
    except OmniAlphaError as error:
        raise OmniAlphaError(f"{source}: {error}") from error
    except RuntimeError as error:  # load_state_dict on other depths or widths
        raise OmniAlphaError(f"{source} has a shape that ComfyUI's Wan VAE cannot take: {error}") from error
    check_vae(vae)
    return vae


def check_vae(vae: VAE) -> None:
    """Makes sure that a VAE has four channels and Qwen-Image's latents.

    Raises:
        OmniAlphaError: it has not; the message says what was found.
    """
    colours, latents = getattr(vae, "output_channels", None), getattr(vae, "latent_channels", None)
    if (colours, latents, getattr(vae, "latent_dim", None)) != (4, 16, 3):
        raise OmniAlphaError(
            f"This VAE has {colours} colour and {latents} latent channels; OmniAlpha needs the RGBA VAE with 4 and 16. "
            f"Load it with 'OmniAlpha Load VAE', which can also make one from Qwen-Image's RGB VAE."
        )


def encode(vae: VAE, layers: Sequence[Tensor], tile: int = 0) -> list[Tensor]:
    """RAW latents of layers.

    Args:
        vae: an RGBA VAE.
        layers: [4, H, W] in [0, 1], sides multiples of 16, sizes may differ.
        tile: side of the tiles in pixels, 0 to encode in one piece (ComfyUI tiles by itself when memory runs out).

    Returns:
        [1, 16, 1, H/8, W/8] each, the posterior mean.

    Raises:
        OmniAlphaError: another VAE, or sides that do not divide.
    """
    check_vae(vae)
    for layer in layers:
        _check_sides(layer)
    latents, progress = [], ProgressBar(len(layers))
    for layer in layers:
        throw_exception_if_processing_interrupted()
        image = to_image([layer])  # [1, H, W, 4]
        latents.append(vae.encode_tiled(image, **_tiles(tile, 1)) if tile else vae.encode(image))
        progress.update(1)
    return latents


def decode(vae: VAE, samples: Tensor, tile: int = 0) -> list[Tensor]:
    """Layers from RAW latents.

    Args:
        vae: an RGBA VAE.
        samples: [B, 16, m, h, w] or [B, 16, h, w].
        tile: side of the tiles in pixels, 0 to decode in one piece.

    Returns:
        B * m layers [4, 8h, 8w] in [0, 1].

    Raises:
        OmniAlphaError: another VAE, other latents, or latents with NaN.
    """
    check_vae(vae)
    latents = layer_latents(samples)
    layers, progress = [], ProgressBar(len(latents))
    for latent in latents:
        throw_exception_if_processing_interrupted()
        frames = latent[None, :, None]  # [1, 16, 1, h, w]
        image = vae.decode_tiled(frames, **_tiles(tile, PIXELS)) if tile else vae.decode(frames)
        picture = image.reshape(-1, *image.shape[-3:])[0]  # of [1, 1, H, W, 4] or [1, H, W, 4]
        layers.append(rearrange(picture, "h w c -> c h w").float())
        progress.update(1)
    return layers


def round_trip(vae: VAE, layer: Tensor) -> Tensor:
    """A layer [4, H, W] as the VAE gives it back. Errors are those of `encode` and `decode`."""
    return decode(vae, encode(vae, [layer])[0])[0]


def layer_latents(samples: Tensor) -> list[Tensor]:
    """A LATENT's samples as [16, h, w] per layer.

    Raises:
        OmniAlphaError: not 16-channel latents, or NaN in them.
    """
    if samples.ndim == 4:
        samples = samples[:, :, None]
    if samples.ndim != 5 or samples.shape[1] != 16:
        raise OmniAlphaError(
            f"The latent has shape {list(samples.shape)}; OmniAlpha's are [batch, 16, layers, height/8, width/8]. "
            f"Connect the latent of 'OmniAlpha Instruct' or what a sampler made of it."
        )
    if not torch.isfinite(samples).all():
        raise OmniAlphaError(
            "The latent holds NaN or infinity: sampling failed. Usual causes are a MODEL in float16 (use bfloat16 or "
            "float32) and a damaged file."
        )
    return list(rearrange(samples, "b c m h w -> (b m) c h w"))


def _check_sides(layer: Tensor) -> None:
    h, w = layer.shape[1:]
    if h % 16 or w % 16:
        near = [max(16, round(side / 16) * 16) for side in (w, h)]
        raise OmniAlphaError(
            f"A layer of {w}x{h} cannot be encoded: both sides have to be multiples of 16 pixels. Resize it, for "
            f"example to {near[0]}x{near[1]}, or let 'OmniAlpha Sequence' and 'OmniAlpha Instruct' fit it."
        )


def _tiles(side: int, scale: int) -> dict[str, int]:
    """ComfyUI's tile arguments for tiles of `side` pixels, in units of `scale` pixels."""
    side = max(side, SMALLEST_TILE) // scale
    return {"tile_x": side, "tile_y": side, "overlap": side // OVERLAP}
