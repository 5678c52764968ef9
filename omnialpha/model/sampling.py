"""Flow matching as Qwen-Image samples it: noise levels, norm-preserving guidance and the Euler loop.

A latent at noise level sigma is (1 - sigma) * clean + sigma * noise; the model predicts the velocity noise - clean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.schedule import Schedule
from ..checkpoint.vae_keys import LATENT_CHANNELS
from ..errors import OmniAlphaError


def sigmas(steps: int, target_tokens: int, schedule: Schedule = Schedule()) -> Tensor:  # noqa: B008 - frozen
    """Noise levels of a sampling run, from 1 down to 0.

    Evenly spaced levels 1 ... 1/steps, pushed towards noise by exp(mu) / (exp(mu) + 1/sigma - 1), then stretched so
    that the last one is `schedule.terminal`. A single step keeps its level 1 (stretching it would divide 0 by 0).

    The levels are those of diffusers' FlowMatchEulerDiscreteScheduler bit for bit: the time embedding multiplies a
    level by 1000, and what the model makes of one rounding shows in the picture. So the arithmetic is NumPy's in
    float32, in the scheduler's own order of operations: torch computes scalar / tensor as a product with a reciprocal.

    Args:
        steps: number of model evaluations, at least 1.
        target_tokens: tokens of all target layers together: m * (h/2) * (w/2).
        schedule: the checkpoint's spacing.

    Returns:
        float32 [steps + 1], the last one 0.

    Raises:
        OmniAlphaError: fewer than one step, or half a step.
    """
    if not isinstance(steps, Integral) or steps < 1:
        raise OmniAlphaError(f"Sampling needs a whole number of at least 1 step, got {steps}.")
    even = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
    if schedule.shift is None:
        factor = math.exp(schedule.mu(target_tokens))
        levels = factor / (factor + (1 / even - 1))
    else:
        levels = schedule.shift * even / (1 + (schedule.shift - 1) * even)
    if schedule.terminal and steps > 1:
        rest = 1 - levels
        levels = 1 - rest / (rest[-1] / (1 - schedule.terminal))
    return torch.from_numpy(np.append(levels, np.float32(0)))


def model_time(sigma: Tensor) -> Tensor:
    """A noise level as the transformer is told it, shaped like `sigma`.

    diffusers' scheduler keeps levels as timesteps of 0 to 1000 and its pipeline divides those again. Two roundings
    make one level in fifty another number, and the time embedding multiplies what is left by 1000.
    """
    return sigma * 1000 / 1000


def guide(cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
    """Classifier-free guidance that keeps the length of each token's prediction.

    Args:
        cond: [..., 64] prediction with the prompt; the last axis is one token.
        uncond: the same without; not looked at (and may be None) for scale <= 1.
        scale: guidance strength; 1 and below give `cond`.

    Returns:
        [..., 64]: uncond + scale * (cond - uncond), each token rescaled to the norm of `cond`.

    Raises:
        OmniAlphaError: scale is not a finite number.
    """
    if not math.isfinite(scale):
        raise OmniAlphaError(f"Guidance must be a finite number, got {scale}.")
    if scale <= 1:
        return cond
    assert uncond is not None, "guidance above 1 compares with a prediction without the prompt"
    combined = uncond + scale * (cond - uncond)
    length = torch.linalg.vector_norm(cond, dim=-1, keepdim=True)
    combined_length = torch.linalg.vector_norm(combined, dim=-1, keepdim=True)
    # Where the combination vanishes it has no direction to rescale, and 0 / 0 must not poison the picture.
    return combined * torch.where(combined_length > 0, length / combined_length, 0)


def initial_noise(seed: int, m: int, h: int, w: int) -> Tensor:
    """The noise that a seed stands for: float32 from the CPU's generator, as ComfyUI draws it.

    Args:
        seed: 0 ... 2**64 - 1.
        m: number of target layers.
        h: latent height (pixels / 8).
        w: latent width.

    Returns:
        float32 [1, 16, m, h, w] on the CPU.

    Raises:
        OmniAlphaError: seed out of range.
    """
    if not isinstance(seed, Integral) or not 0 <= seed < 2**64:
        raise OmniAlphaError(f"A seed is a whole number from 0 to 2**64 - 1, got {seed}.")
    generator = torch.Generator("cpu").manual_seed(int(seed))
    return torch.randn(1, LATENT_CHANNELS, m, h, w, generator=generator, dtype=torch.float32, device="cpu")


def denoise(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: Tensor,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Euler integration from sigmas[0] down to sigmas[-1].

    Args:
        velocity: (x, sigma) -> predicted velocity, shaped like x; sigma is a 0-dimensional tensor.
        x: latents at noise level sigmas[0], any shape.
        sigmas: [steps + 1], falling.
        callback: called after each step as (step from 0, steps, estimate of the clean latents).

    Returns:
        Latents at sigmas[-1], shaped like x.

    Raises:
        OmniAlphaError: the model's prediction is not finite.
    """
    steps = len(sigmas) - 1
    for i in range(steps):
        v = velocity(x, sigmas[i])
        if not torch.isfinite(v).all():
            raise OmniAlphaError(
                f"The model returned NaN or infinity in step {i + 1} of {steps}. Usual causes are float16 where the "
                f"model needs bfloat16 or float32, a damaged checkpoint, or inputs that hold NaN."
            )
        clean = x - sigmas[i] * v
        x = x + (sigmas[i + 1] - sigmas[i]) * v
        if callback is not None:
            callback(i, steps, clean)
    return x
