"""The LoRA that lies in a checkpoint's folder. Others load through ComfyUI's own nodes."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import load_lora_for_models

from ...omnialpha.checkpoint.lora import read_lora

_PREFIX = "diffusion_model."


def apply_lora(model: ModelPatcher, path: Path) -> ModelPatcher:
    """A clone of a MODEL with a LoRA at full strength, as a patch that ComfyUI can take off again.

    What the file holds and how strong it is meant is read as the library reads it: ComfyUI's own reader passes over
    the alpha in diffusers' metadata, and over every key with PEFT's prefix. It is given names and strengths that it
    knows.

    Args:
        model: Qwen-Image MODEL.
        path: .safetensors file, or a folder with one.

    Raises:
        OmniAlphaError: see the library's `read_lora`, `Lora.place` and `Lora.factors`.
    """
    lora = read_lora(path)
    weights = model.model.diffusion_model.state_dict()
    placed, unmatched = lora.place({name: tuple(weight.shape) for name, weight in weights.items()})
    tensors = {}
    for name, strength, down, up in lora.factors(placed):
        stem = _PREFIX + name.removesuffix(".weight")
        alpha = torch.tensor(strength * down.shape[0], dtype=torch.float64)  # ComfyUI divides it by the rank
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up, f"{stem}.alpha": alpha}
    if unmatched:
        logging.warning(
            "OmniAlpha: %s: %d entries have no place in this transformer and were left out (%s).",
            lora.path.name,
            len(unmatched),
            "; ".join(unmatched[:3]),
        )
    return load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]
