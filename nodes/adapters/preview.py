"""Previews of RGBA latents while they are sampled.

ComfyUI's own map from latents to RGB knows nothing of alpha. Ours is fitted to the VAE at hand: one encoded test card
gives the least-squares map from a latent's 16 values to the mean colour and alpha of its 8x8 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import latent_preview
import torch
import torch.nn.functional as F
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...omnialpha.files.pictures import to_pil
from .layer_vae import PIXELS, encode

_KEY = "omnialpha_preview"
_CARD = 128  # pixels a side: 256 latents for 17 unknowns


def previewer(model: ModelPatcher, vae: VAE) -> Callable[[Tensor], tuple] | None:
    """What turns estimated latents into a preview, or None where the artist has previews off.

    The preview shows all layers side by side, back to front. It is a PNG: ComfyUI saves previews in the format it is
    told, and a JPEG with alpha takes the server down.
    """
    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return None
    mapping = _mapping(vae)

    def show(estimate: Tensor) -> tuple[str, Image.Image, int]:
        latents = model.model.process_latent_out(estimate[:1].float().cpu())[0]  # [16, m, h, w], RAW
        return "PNG", to_pil(contact_strip(latents, mapping)), latent_preview.MAX_PREVIEW_RESOLUTION

    return show


def contact_strip(latents: Tensor, mapping: Tensor) -> Tensor:
    """RAW latents [16, m, h, w] -> one layer [4, h, m * w]."""
    colours = F.pad(rearrange(latents, "values m h w -> h m w values"), (0, 1), value=1.0) @ mapping
    strip = rearrange(colours, "h m w rgba -> rgba h (m w)").clamp(0, 1)
    return torch.where(torch.isfinite(strip), strip, 0)


def fit(vae: VAE) -> Tensor:
    """[17, 4]: RGBA as a linear function of a RAW latent's 16 values and 1."""
    card = test_card()
    latents = rearrange(encode(vae, [card])[0][0, :, 0], "values h w -> (h w) values").cpu()
    colours = rearrange(F.avg_pool2d(card, PIXELS), "rgba h w -> (h w) rgba")
    with torch.inference_mode(False):
        known = F.pad(latents.float(), (0, 1), value=1.0)
        return torch.linalg.lstsq(known.double(), colours.double(), driver="gelsd").solution.float()


def test_card() -> Tensor:
    """A layer [4, 128, 128] of soft blotches in all colours and opacities, the same every time."""
    noise = torch.randn(1, 4, _CARD // 16, _CARD // 16, generator=torch.Generator().manual_seed(1))
    blotches = F.interpolate(noise, size=(_CARD, _CARD), mode="bicubic")[0]
    return torch.sigmoid(2 * blotches)


def _mapping(vae: VAE) -> Tensor:
    mapping = vae.patcher.get_attachment(_KEY)
    if mapping is None:
        mapping = fit(vae)
        vae.patcher.set_attachments(_KEY, mapping)
    return mapping
