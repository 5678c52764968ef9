"""The LoRA that lies in a checkpoint's folder. Others load through ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Mapping

from comfy.model_patcher import ModelPatcher
from comfy.sd import load_lora_for_models
from torch import Tensor

from ...omnialpha.errors import OmniAlphaError

_PEFT = "base_model.model."


def apply_lora(model: ModelPatcher, tensors: Mapping[str, Tensor], source: str) -> ModelPatcher:
    """A clone of a MODEL with a LoRA at full strength, as a patch that ComfyUI can take off again.

    Args:
        model: Qwen-Image MODEL.
        tensors: a LoRA in diffusers' or PEFT's naming, of any rank. PEFT's prefix means nothing to ComfyUI, which would
            pass over every key that has it.
        source: how messages call the file.

    Raises:
        OmniAlphaError: no key of it belongs to the model.
    """
    loaded, _ = load_lora_for_models(model, None, {k.removeprefix(_PEFT): t for k, t in tensors.items()}, 1.0, 0.0)
    if not loaded.patches:
        raise OmniAlphaError(
            f"{source}: none of its {len(tensors)} tensors belongs to this transformer (found keys such as "
            f"{next(iter(tensors))}). Expected names such as transformer_blocks.0.attn.to_q.lora_A.weight."
        )
    return loaded
