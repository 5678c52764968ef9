"""How far a result is from the truth. Planes and layers are float tensors in [0, 1] of equal shape.

Alpha planes [H, W] are measured as matting does (Rhemann et al., "A perceptually motivated online benchmark for image
matting", CVPR 2009); sums are plain sums over pixels, not divided by 1000. Layers [4, H, W] with straight alpha are
measured so that colours hidden under alpha 0 never count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from .errors import OmniAlphaError
from .layers.compositing import flatten, over_colour

# Black, white, grey, the three primaries and their complements, in [0, 1].
NINE = torch.tensor([
    [0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0],
])  # fmt: skip
MOST_DB = 100.0  # of pictures that differ by less than 8 bits can say; keeps means over pictures finite
SIGMA = 1.4  # of Grad, in pixels
STEP, THETA = 0.1, 0.15  # of Conn: thresholds are STEP apart, a smaller loss of connection than THETA is none
WINDOW = 11  # side of SSIM's window, in pixels


def unknown(trimap: Tensor) -> Tensor:
    """[H, W] bool: where a trimap [H, W] says neither object (1) nor background (0). Benchmarks measure only there."""
    return (trimap > 0) & (trimap < 1)


def sad(found: Tensor, truth: Tensor, region: Tensor | None = None) -> float:
    """Sum of absolute differences of two alpha planes [H, W]; 0 is perfect. It grows with the number of pixels.

    Args:
        region: [H, W] bool, the pixels that count; all unless told.
    """
    _check(found, truth, region)
    return float(_within(region, (found.double() - truth.double()).abs()).sum())


def mad(found: Tensor, truth: Tensor, region: Tensor | None = None) -> float:
    """Mean absolute difference of two alpha planes [H, W]; 0 is perfect. See `sad`; 0 over an empty region."""
    _check(found, truth, region)
    return _mean(_within(region, (found.double() - truth.double()).abs()))


def alpha_mse(found: Tensor, truth: Tensor, region: Tensor | None = None) -> float:
    """Mean squared error of two alpha planes [H, W]; 0 is perfect. Matting papers print it times 1000. See `mad`."""
    _check(found, truth, region)
    return _mean(_within(region, (found.double() - truth.double()).square()))


def grad(found: Tensor, truth: Tensor, region: Tensor | None = None) -> float:
    """Gradient error of two alpha planes [H, W]: sum of squared differences of their gradients' magnitudes.

    Gradients are convolutions with first derivatives of a Gaussian of sigma 1.4, cut where it falls below 0.01 and of
    unit L2 norm, as in the benchmark's script (CVPR 2009, section 4.2); the border's pixels go on outside.

    Args:
        region: [H, W] bool, the pixels that count; all unless told.
    """
    _check(found, truth, region)
    return float(_within(region, (_gradient(found) - _gradient(truth)).square()).sum())


def conn(found: Tensor, truth: Tensor, region: Tensor | None = None) -> float:
    """Connectivity error of two alpha planes [H, W]: sum of absolute differences of the degrees of connectivity.

    The source is the largest region (4-connected) that is at least as opaque as a threshold in both planes. A pixel is
    connected up to the last of the thresholds 0, 0.1, ..., 1 whose source, and all below it, it is part of. Its degree
    is 1 minus its alpha beyond that threshold, or 1 where that is less than 0.15 (CVPR 2009, section 4.2).

    Args:
        region: [H, W] bool, the pixels that count; all unless told.
    """
    import numpy as np
    from scipy.ndimage import label

    _check(found, truth, region)
    planes = [plane.double().cpu().numpy() for plane in (found, truth)]
    steps = [k * STEP for k in range(round(1 / STEP) + 1)]
    connected = np.full(planes[0].shape, -1.0)
    for below, step in pairwise(steps):
        # Alpha of 8 bits and float32 meets the thresholds up to rounding.
        parts: Any = label(np.minimum(*planes) >= step - 1e-6)
        labels, count = parts
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        source = labels == 1 + sizes.argmax() if count else np.zeros_like(labels, bool)
        connected[(connected < 0) & ~source] = below
    connected[connected < 0] = 1
    degrees = [1 - np.where(plane - connected >= THETA - 1e-6, plane - connected, 0) for plane in planes]
    return float(_within(region, torch.from_numpy(np.abs(degrees[0] - degrees[1]))).sum())


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


def rgb_l1(found: Tensor, truth: Tensor) -> float:
    """Mean absolute difference of two layers' straight colours [4, H, W], each pixel weighted by the true alpha.

    0 is perfect, and what a truth without any visible pixel gives. It says nothing about alpha: see `soft_iou`. (The
    pair is what work on layer decomposition reports, such as LayerD, arXiv 2509.25134.)
    """
    _check(found, truth)
    weight = truth[3].double()
    error = (found[:3].double() - truth[:3].double()).abs().mean(dim=0)
    return float((error * weight).sum() / weight.sum()) if weight.sum() > 0 else 0.0


def nine_psnr(found: Tensor, truth: Tensor) -> float:
    """PSNR in dB of two layers [4, H, W] over each of the nine colours `NINE`, mean of the nine.

    More is better; each of the nine is at most 100, which equal pictures give.
    """
    _check(found, truth)
    return fmean(min(MOST_DB, psnr(over_colour(found, c), over_colour(truth, c))) for c in NINE.tolist())


def nine_ssim(found: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of two layers [4, H, W] over the nine colours `NINE`, mean of the nine.

    Gaussian window of sigma 1.5, 11 pixels wide; mean of the three channels. 1 is perfect.

    Raises:
        OmniAlphaError: a side is shorter than the window.
    """
    from skimage.metrics import structural_similarity

    _check(found, truth)
    if min(found.shape[1:]) < WINDOW:
        raise OmniAlphaError(f"SSIM needs {WINDOW} pixels a side or more, the layer is {list(found.shape[1:])}.")
    total = 0.0
    for channel in range(3):
        # Over nine colours a channel meets but three brightnesses, and channels are compared one by one.
        levels, counts = NINE[:, channel].unique(return_counts=True)
        for level, count in zip(levels.tolist(), counts.tolist()):
            pair = [(over_colour(layer, [level] * 3)[channel]).double().cpu().numpy() for layer in (found, truth)]
            total += count * structural_similarity(
                *pair, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
    return float(total / (3 * len(NINE)))


def recomposition_error(layers: Sequence[Tensor], composite: Tensor) -> float:
    """Mean absolute difference between layers [4, H, W], flattened back to front, and the picture they make up.

    Where the flattened layers are not opaque, white shows. 0 is perfect.
    """
    whole = flatten(layers)
    _check(whole, composite)
    return _mean((over_colour(whole).double() - over_colour(composite).double()).abs())


def energy_score(samples: Sequence[Sequence[Tensor]], truth: Sequence[Tensor]) -> float:
    """Energy score of several answers, each a list of layers [4, H, W], against one true list of layers.

    Where the input leaves many answers open, a copy of the input or a grey mean can have a smaller error than any good
    picture. This score is strictly proper: in the mean over many truths nothing is better than answers drawn as the
    truths are. It is the mean distance to the truth less half the mean distance between two answers; distance is the
    root mean square over premultiplied channels and alpha of all layers (Gneiting and Raftery, "Strictly proper scoring
    rules, prediction, and estimation", 2007, section 4.3). Lower is better. With one answer, as of a method that has
    no chance in it, it is the distance alone.
    """
    drawn, true = [_premultiplied(layers) for layers in samples], _premultiplied(truth)
    distance = fmean(_distance(answer, true) for answer in drawn)
    pairs = [_distance(one, other) for one, other in combinations(drawn, 2)]
    return distance - (fmean(pairs) / 2 if pairs else 0)


def _premultiplied(layers: Sequence[Tensor]) -> Tensor:
    """All layers' values in one row, colours times alpha."""
    return torch.cat([torch.cat([layer[:3] * layer[3:], layer[3:]]).flatten() for layer in layers]).double()


def _distance(one: Tensor, other: Tensor) -> float:
    _check(one, other)
    return float((one - other).square().mean().sqrt())


def _gradient(plane: Tensor) -> Tensor:
    """[H, W] float64: the length of a plane's gradient, see `grad`."""
    import numpy as np
    from scipy.ndimage import correlate1d

    reach = math.ceil(SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * SIGMA * 0.01)))
    x = np.arange(-reach, reach + 1)
    bell = np.exp(-(x**2) / (2 * SIGMA**2))
    slope = x * bell
    kernels = bell / np.linalg.norm(bell), slope / np.linalg.norm(slope)
    values = plane.double().cpu().numpy()
    parts = [
        correlate1d(correlate1d(values, kernels[1], axis, mode="nearest"), kernels[0], 1 - axis, mode="nearest")
        for axis in (0, 1)
    ]
    return torch.from_numpy(np.hypot(*parts))


def _within(region: Tensor | None, values: Tensor) -> Tensor:
    """The values of the pixels that count."""
    return values if region is None else values[region]


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0


def _check(found: Tensor, truth: Tensor, region: Tensor | None = None) -> None:
    if found.shape != truth.shape:
        raise OmniAlphaError(f"Cannot compare {list(found.shape)} with {list(truth.shape)}: the shapes must be equal.")
    if region is not None and (region.shape != found.shape or region.dtype != torch.bool):
        raise OmniAlphaError(f"A region must be bool {list(found.shape)}, got {region.dtype} {list(region.shape)}.")
