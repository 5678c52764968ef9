"""Undoes a permutation that ComfyUI's Qwen2.5-VL vision tower leaves in its output.

The tower sorts patches into windows of 112 pixels and attends within each. Its output has to be sorted back; ComfyUI
does not, so pictures larger than one window reach the transformer with their pieces shuffled. Whether the ComfyUI at
hand still does that is probed, once, on a tower of a few numbers. Its layers are PyTorch's own: ComfyUI's may have no
weights before some are loaded.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from comfy.sd import CLIP
from torch import Tensor, nn

from .text_encoder import ENCODER

_TOWER = f"{ENCODER}.transformer.visual"


def in_picture_order(clip: CLIP) -> CLIP:
    """A clone of a Qwen2.5-VL CLIP whose pictures come out in order; `clip` itself where nothing is wrong."""
    tower = clip.patcher.get_model_object(_TOWER)
    forward = clip.patcher.get_model_object(f"{_TOWER}.forward")
    if isinstance(forward, InOrder) or not scrambles(type(tower)):
        return clip
    clone = clip.clone()
    clone.patcher.add_object_patch(f"{_TOWER}.forward", InOrder(tower, forward))
    return clone


class InOrder:
    """A vision tower's `forward` that sorts its output back into reading order."""

    def __init__(self, tower: Any, forward):
        self.tower, self.forward = tower, forward

    def __call__(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Patches [rows * columns, values] and grids [pictures, 3] -> [tokens, D]."""
        tokens = self.forward(pixel_values, image_grid_thw)
        order, _ = self.tower.get_window_index(image_grid_thw)
        return tokens[torch.argsort(torch.as_tensor(order, device=tokens.device))]


@cache
def scrambles(tower_class: type[nn.Module]) -> bool:
    """Does a vision tower of that class return its tokens in window order?

    A tower without attention blocks maps every token on its own, so its output against the same tokens put through the
    parts by hand shows the order.
    """
    try:
        return _scrambles(tower_class)
    except (TypeError, AttributeError, RuntimeError) as error:
        logging.warning(
            "OmniAlpha cannot tell in which order this ComfyUI's Qwen2.5-VL returns the pieces of a picture (%s) and "
            "takes it to be right. If layers of pictures above 112 pixels come out wrong, update this pack.",
            error,
        )
        return False


def _scrambles(tower_class: type[nn.Module]) -> bool:
    with torch.inference_mode(False), torch.no_grad():
        tower: Any = tower_class(
            hidden_size=8,
            output_hidden_size=8,
            intermediate_size=8,
            num_heads=1,
            num_layers=0,
            device="cpu",
            dtype=torch.float32,
            ops=nn,
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in tower.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        rows = columns = 12  # 6 x 6 tokens, four windows
        patches = torch.randn(rows * columns, tower.patch_embed.proj.weight[0].numel(), generator=generator)
        grid = torch.tensor([[1, rows, columns]])
        in_order = tower.merger(tower.patch_embed(patches))
        return not torch.allclose(tower(patches, grid), in_order, rtol=1e-3, atol=1e-3)
