"""A MODEL from a transformer folder in diffusers layout, of any size.

ComfyUI's own loader knows one size of Qwen-Image. Its module takes any, and its keys are those of diffusers, so the
shape is read from the tensors and config.json and ComfyUI's classes do the rest: dtype, device, memory management.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import comfy.model_management as management
import torch
from comfy import supported_models, utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...omnialpha.checkpoint import load_tensors
from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.json_files import read_json
from .precision import full_precision

# A few keys that only Qwen-Image's transformer has.
_LANDMARKS = ("img_in.weight", "txt_norm.weight", "proj_out.weight", "transformer_blocks.0.attn.norm_q.weight")


def load_transformer(folder: Path, statistics: tuple[list[float], list[float]] | None = None) -> ModelPatcher:
    """A MODEL from a folder with config.json and safetensors.

    Args:
        folder: the checkpoint's `transformer` folder.
        statistics: (mean, std) of each of the 16 latent channels where they are not Qwen-Image's; ComfyUI's samplers
            normalise by what the MODEL says.

    Raises:
        OmniAlphaError: another architecture, or tensors missing.
    """
    tensors = load_tensors(folder)
    shape = architecture(tensors, read_json(folder / "config.json"), folder)
    config = supported_models.QwenImage(shape)
    if statistics is not None:
        _use_statistics(config.latent_format, *statistics)

    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = full_precision(tensors) or management.unet_dtype(
        model_params=utils.calculate_parameters(tensors),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=utils.weight_dtype(tensors),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(tensors, "").to(offload)
    _check_keys(tensors, model.diffusion_model.state_dict(), folder)
    model.load_model_weights(tensors, "")
    return ModelPatcher(model, load_device=device, offload_device=offload)


def architecture(tensors: Mapping[str, Tensor], config: Mapping, source: Path | str) -> dict:
    """ComfyUI's description of the transformer that `tensors` belong to.

    Sizes come from the tensors; only how a head is shared out between layer, y and x has to come from config.json.

    Raises:
        OmniAlphaError: not a Qwen-Image transformer.
    """
    absent = [key for key in _LANDMARKS if key not in tensors]
    if absent:
        raise OmniAlphaError(
            f"{source} is not a Qwen-Image transformer: {', '.join(absent)} missing among its {len(tensors)} tensors."
        )
    width, channels = tensors["img_in.weight"].shape
    head = tensors["transformer_blocks.0.attn.norm_q.weight"].shape[0]
    axes = tuple(config.get("axes_dims_rope", (16, 56, 56)))
    if sum(axes) != head:
        raise OmniAlphaError(
            f"{source}/config.json has axes_dims_rope {list(axes)}; its heads are {head} wide, so they must add up to "
            f"{head}."
        )
    patch = int(config.get("patch_size", 2))
    return {
        "image_model": "qwen_image",
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": tensors["proj_out.weight"].shape[0] // patch**2,
        "num_layers": len({key.split(".")[1] for key in tensors if key.startswith("transformer_blocks.")}),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": tensors["txt_norm.weight"].shape[0],
        "axes_dims_rope": axes,
    }


def latent_statistics(vae_config: Mapping) -> tuple[list[float], list[float]] | None:
    """(mean, std) of the latent channels as a VAE's config.json states them, or None."""
    mean, std = vae_config.get("latents_mean"), vae_config.get("latents_std")
    return (list(map(float, mean)), list(map(float, std))) if mean and std else None


def _use_statistics(latent_format, mean: list[float], std: list[float]) -> None:
    """Make a latent format normalise with other numbers; the object belongs to one model."""
    latent_format.latents_mean = torch.tensor(mean).reshape(latent_format.latents_mean.shape)
    latent_format.latents_std = torch.tensor(std).reshape(latent_format.latents_std.shape)


def _check_keys(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path | str) -> None:
    problems = {
        "missing": sorted(set(wanted) - set(found)),
        "unknown": sorted(set(found) - set(wanted)),
        "of another shape": [key for key in wanted if key in found and found[key].shape != wanted[key].shape],
    }
    if any(problems.values()):
        words = ", ".join(f"{len(keys)} {what} (such as {keys[0]})" for what, keys in problems.items() if keys)
        raise OmniAlphaError(f"{source} does not fit ComfyUI's Qwen-Image transformer. Tensors: {words}.")
