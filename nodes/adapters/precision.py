"""Which models are small enough to run in float32 wherever they run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SMALL = 32_000_000  # parameters; the public VAE alone has four times as many


def in_precision(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], torch.dtype | None]:
    """A model's tensors and the dtype it should have: float32 both where it is small; else the tensors as they are, and
    None, for ComfyUI to choose.

    The built-in micro costs nothing in float32, and then gives the same picture on every device. ComfyUI need not cast
    the tensors: layers that were made without weights take those of the file.
    """
    if sum(tensor.numel() for tensor in tensors.values()) < SMALL:
        return {name: tensor.float() for name, tensor in tensors.items()}, torch.float32
    return dict(tensors), None
