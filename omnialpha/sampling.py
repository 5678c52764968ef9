"""Flow matching as Qwen-Image samples it: noise levels, norm-preserving guidance and the Euler loop.

A latent at noise level sigma is (1 - sigma) * clean + sigma * noise; the model predicts the velocity noise - clean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from .errors import OmniAlphaError

LATENT_CHANNELS = 16

# Sampler options of diffusers' scheduler configs that would change the picture and that this sampler does not have.
_FOREIGN_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class Schedule:
    """How noise levels are spaced; the defaults are Qwen-Image's.

    Attributes:
        base_shift: shift mu at `base_tokens` target tokens.
        max_shift: shift mu at `max_tokens` target tokens; other counts lie on the same line, also beyond both ends.
        base_tokens: see `base_shift`.
        max_tokens: see `max_shift`.
        terminal: last noise level before zero, None to leave the shifted levels as they are.
        shift: factor of one shift for all sizes, in place of exp(mu); None where the number of tokens decides.
    """

    base_shift: float = 0.5
    max_shift: float = 0.9
    base_tokens: int = 256
    max_tokens: int = 8192
    terminal: float | None = 0.02
    shift: float | None = None

    def mu(self, target_tokens: int) -> float:
        """The shift for that many target tokens, all target layers together; rounded as diffusers rounds it."""
        slope = (self.max_shift - self.base_shift) / (self.max_tokens - self.base_tokens)
        return target_tokens * slope + (self.base_shift - slope * self.base_tokens)

    @classmethod
    def from_config(cls, config: Mapping) -> Schedule:
        """From a diffusers `scheduler_config.json` (FlowMatchEulerDiscreteScheduler).

        A key that is absent keeps Qwen-Image's value. A config without dynamic shifting has one shift for all sizes.

        Raises:
            OmniAlphaError: a value of the wrong type, or an option that this sampler does not have.
        """
        _refuse_foreign_options(config)
        base, top = _number(config, "base_shift", cls.base_shift), _number(config, "max_shift", cls.max_shift)
        static = config.get("use_dynamic_shifting") is False
        few = int(_number(config, "base_image_seq_len", cls.base_tokens))
        many = int(_number(config, "max_image_seq_len", cls.max_tokens))
        if few == many:
            raise OmniAlphaError(f"The scheduler config has base_image_seq_len = max_image_seq_len = {few}.")
        stretched = config.get("shift_terminal", cls.terminal) is not None
        terminal = _number(config, "shift_terminal", cls.terminal, least=0, below=1) if stretched else None
        return cls(base, top, few, many, terminal, _number(config, "shift", 1.0, least=1e-6) if static else None)


def _refuse_foreign_options(config: Mapping) -> None:
    foreign = [name for name in _FOREIGN_OPTIONS if config.get(name)]
    if config.get("time_shift_type", "exponential") != "exponential":
        foreign.append(f"time_shift_type={config['time_shift_type']}")
    if foreign:
        raise OmniAlphaError(
            f"The scheduler config asks for {', '.join(foreign)}, which OmniAlpha's sampler does not have. "
            f"Use the scheduler_config.json of Qwen-Image-Edit-2509."
        )


def _number(config: Mapping, key: str, default: float | None, least: float = -1e6, below: float = 1e6) -> float:
    """A number of the config, least <= number < below; `default` where the key is absent."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
        raise OmniAlphaError(
            f"The scheduler config has {key} = {value!r}; expected a number from {least:g} to below {below:g}."
        )
    return value


def sigmas(steps: int, target_tokens: int, schedule: Schedule = Schedule()) -> Tensor:
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
