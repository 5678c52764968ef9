"""How far a result is from the truth. Planes and layers are float tensors in [0, 1] of equal shape."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import OmniAlphaError


def alpha_mse(found: Tensor, truth: Tensor) -> float:
    """Mean squared error of two alpha planes [H, W]; 0 is perfect. Matting papers print it times 1000."""
    _check(found, truth)
    return float((found.double() - truth.double()).square().mean())


def soft_iou(found: Tensor, truth: Tensor) -> float:
    """Intersection over union of two alpha planes [H, W] without a threshold: sum(min) / sum(max).

    1 is perfect; two planes that are empty throughout agree, so they give 1 as well.
    """
    _check(found, truth)
    union = float(torch.maximum(found, truth).double().sum())
    return float(torch.minimum(found, truth).double().sum()) / union if union > 0 else 1.0


def psnr(found: Tensor, truth: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two pictures [C, H, W]; more is better, equal pictures give infinity.

    Args:
        weight: [H, W] in [0, 1], how much each pixel counts; all alike unless told.
    """
    _check(found, truth)
    squared = (found.double() - truth.double()).square().mean(dim=0)
    weight = torch.ones_like(squared) if weight is None else weight.double()
    error = float((squared * weight).sum() / weight.sum().clamp_min(1e-12))
    return float("inf") if error == 0 else -10 * float(torch.log10(torch.tensor(error, dtype=torch.float64)))


def _check(found: Tensor, truth: Tensor) -> None:
    if found.shape != truth.shape:
        raise OmniAlphaError(f"Cannot compare {list(found.shape)} with {list(truth.shape)}: the shapes must be equal.")
