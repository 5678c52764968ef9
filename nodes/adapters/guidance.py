"""The library's norm-preserving guidance as ComfyUI's sampler calls it."""

from __future__ import annotations

import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ...omnialpha.model.sampling import guide
from ...omnialpha.model.tokens import patchify, unpatchify


def install(model: ModelPatcher) -> None:
    """Use `rescaled_guidance` for this MODEL (a clone of one's own; the change is in place)."""
    model.set_model_sampler_cfg_function(rescaled_guidance)


def is_installed(model: ModelPatcher) -> bool:
    """Does this MODEL have a guidance function, ours or another extension's?"""
    return "sampler_cfg_function" in model.model_options


def rescaled_guidance(args: dict) -> Tensor:
    """`guide` on latents.

    ComfyUI passes x - denoised = sigma * velocity as "cond" and "uncond", and wants the same kind back. Rescaling to
    the norm of cond commutes with the factor sigma, so it need not be divided out.

    Args:
        args: "cond", "uncond" [B, 16, m, h, w], or [B, 16, h, w] of one layer, and "cond_scale".

    Returns:
        the same shape.
    """
    cond, uncond, scale = args["cond"], args["uncond"], float(args["cond_scale"])
    if scale <= 1:
        return cond
    h, w = cond.shape[-2:]
    guided = guide(_tokens(cond), _tokens(uncond), scale)
    return rearrange(unpatchify(guided, h + h % 2, w + w % 2)[..., :h, :w], "b ... c h w -> b c ... h w")


def _tokens(latent: Tensor) -> Tensor:
    """[B, 16, (m,) h, w] -> [B, (m,) tokens, 64]. Odd sides are padded with zeros, which add nothing to a norm."""
    h, w = latent.shape[-2:]
    return patchify(F.pad(rearrange(latent, "b c ... h w -> b ... c h w"), (0, w % 2, 0, h % 2)))
