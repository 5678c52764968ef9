"""The flow matching loss: x_t = (1 - t) x_0 + t noise, and the model learns the velocity noise - x_0 (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.tokens import pack, patchify
from .config import Times
from .sources import Batch

SHIFT = 1000  # keeps the seeds of noise apart from those that draw batches


def noise_generator(seed: int, step: int, process: int, group: int) -> torch.Generator:
    """Where the noise of one batch comes from: the same for the same four numbers."""
    mixed = ((seed * 1_000_003 + step) * SHIFT + process) * SHIFT + group
    return torch.Generator().manual_seed(mixed % 2**63)


def draw_times(count: int, times: Times, generator: torch.Generator) -> torch.Tensor:
    """Noise levels t in (0, 1]. [count]"""
    u = torch.rand(count, generator=generator)
    t = {
        "uniform": lambda: u,
        "late": lambda: 2 * u / (1 + u),
        "logit_normal": lambda: torch.randn(count, generator=generator).sigmoid(),
    }[times.shape]()
    return torch.where(torch.rand(count, generator=generator) < times.at_one, 1.0, t.clamp(min=1e-4))


def noisy_sequence(batch: Batch, t: torch.Tensor, generator: torch.Generator):
    """What the transformer gets, and what it has to answer.

    Returns:
        (tokens [B, N, 64] of targets then inputs, img_shapes, per target layer the velocity [B, n, 64]).
    """
    noises = [torch.randn(layer.shape, generator=generator) for layer in batch.targets]
    blend = t.view(-1, 1, 1, 1)
    noisy = torch.stack([torch.lerp(x, noise, blend) for x, noise in zip(batch.targets, noises)], dim=2)
    tokens, shapes = pack(noisy, batch.inputs)
    return tokens, shapes, [patchify(noise - x) for x, noise in zip(batch.targets, noises)]


def layer_loss(
    velocity: torch.Tensor, wanted: Sequence[torch.Tensor], channels: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of each target layer, then the mean over layers: all layers count the same.

    Args:
        velocity: the transformer's answer [B, >= all target tokens, 64].
        wanted: per target layer [B, n, 64].
        channels: weight of each of the 16 latent channels, mean 1; None for all the same.
    """
    weight = 1.0 if channels is None else channels.repeat_interleave(4)  # a token is channel-major: channel, then 2x2
    errors, start = [], 0
    for layer in wanted:
        part = velocity[:, start : start + layer.shape[1]].float()
        errors.append(((part - layer.to(part.device)).pow(2) * weight).mean())
        start += layer.shape[1]
    return torch.stack(errors).mean()
