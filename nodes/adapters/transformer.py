"""A MODEL from a transformer folder in diffusers layout, of any size.

ComfyUI's own loader knows one size of Qwen-Image. Its module takes any, and its keys are those of diffusers, so the
shape is read from the tensors and config.json and ComfyUI's classes do the rest: dtype, device, memory management.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import comfy.model_management as management
import torch
from comfy import model_patcher, supported_models, utils
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...omnialpha.checkpoint.weights import load_tensors
from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.json_files import read_json
from .precision import in_precision
from .twin import check_tensors

# A few keys that only Qwen-Image's transformer has.
_LANDMARKS = ("img_in.weight", "txt_norm.weight", "proj_out.weight", "transformer_blocks.0.attn.norm_q.weight")


def load_transformer(
    folder: Path, statistics: Mapping[str, list[float]] | None = None, disable_dynamic: bool = False
) -> ModelPatcher:
    """A MODEL from a folder with config.json and safetensors. It can load itself again, for copies on other devices.

    Args:
        folder: the checkpoint's `transformer` folder.
        statistics: of the latent channels where they are not Qwen-Image's, as the library's `read_statistics` gives
            them; ComfyUI's samplers normalise by what the MODEL says.
        disable_dynamic: never stream the weights; ComfyUI asks for it where weights are to be changed in place.

    Raises:
        OmniAlphaError: another architecture, or tensors missing.
    """
    tensors, dtype = in_precision(load_tensors(folder))
    shape = architecture(tensors, read_json(folder / "config.json"), folder)
    config = supported_models.QwenImage(shape)
    _use_statistics(config.latent_format, statistics or {})

    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = dtype or management.unet_dtype(
        model_params=utils.calculate_parameters(tensors),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=utils.weight_dtype(tensors),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    twin = QwenImageTransformer2DModel(**shape, device="meta", dtype=dtype, operations=nn)
    check_tensors(tensors, twin, folder, "ComfyUI's Qwen-Image transformer")
    model = config.get_model(tensors, "").to(offload)
    # ComfyUI 0.16 and newer may stream weights into VRAM; its own loaders choose the patcher like this.
    patcher_class = ModelPatcher if disable_dynamic else getattr(model_patcher, "CoreModelPatcher", ModelPatcher)
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    if hasattr(patcher, "is_dynamic") and patcher.is_dynamic():
        model.load_model_weights(tensors, "", assign=True)
    else:
        model.load_model_weights(tensors, "")
        # Layers that were made without weights took the file's dtype, and only streaming casts on the way.
        model.diffusion_model.to(dtype)
    patcher.cached_patcher_init = (load_transformer, (folder, statistics))
    return patcher


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


def _use_statistics(latent_format, statistics: Mapping[str, list[float]]) -> None:
    """Make a latent format, which belongs to one model, normalise with other numbers; it has them under these names."""
    for name, values in statistics.items():
        setattr(latent_format, name, torch.tensor(values).reshape(getattr(latent_format, name).shape))
