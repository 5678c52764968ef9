"""A fitted layer sequence as ComfyUI's conditioning: text with pictures, and the input layers as reference latents."""

from __future__ import annotations

from collections.abc import Sequence

import node_helpers
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...omnialpha.layers.sequence import FittedSequence
from . import layer_vae, prompt


def condition(clip: CLIP, vae: VAE, fitted: FittedSequence, instructions: Sequence[str]) -> list[list]:
    """CONDITIONING for each instruction, all about the same layers.

    Args:
        clip: Qwen2.5-VL.
        vae: RGBA VAE.
        fitted: the layers at the checkpoint's sizes.
        instructions: such as the instruction and the negative prompt.

    Raises:
        OmniAlphaError: the wrong CLIP or VAE.
    """
    prompt.check_clip(clip)
    layer_vae.check_vae(vae)
    texts = [prompt.encode(clip, instruction, fitted.inputs) for instruction in instructions]
    references = layer_vae.encode(vae, fitted.inputs)
    return [_with_references(text, references) for text in texts]


def _with_references(conditioning: list, latents: list[Tensor]) -> list:
    """RAW latents [1, 16, 1, a, b], which the MODEL itself normalises."""
    if not latents:
        return conditioning
    return node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents})
