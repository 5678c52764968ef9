"""Which models are small enough to run in float32 wherever they run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SMALL = 32_000_000  # parameters; the public VAE alone has four times as many


def full_precision(tensors: Mapping[str, Tensor]) -> torch.dtype | None:
    """float32 for a small model, None for one whose precision ComfyUI should choose.

    The built-in micro costs nothing in float32, and then gives the same picture on every device.
    """
    return torch.float32 if sum(tensor.numel() for tensor in tensors.values()) < SMALL else None
