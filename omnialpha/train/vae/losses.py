"""Losses of the RGBA VAE, each a small pure function. Pictures are [n, 4, h, w], straight alpha, in about [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# First and second moment of a background channel in [0, 1]: uniform.
MEAN_B, SQUARE_B = 1 / 2, 1 / 3
MOST = 1e4  # bound of the adversarial term's weight


def over_colour(pictures: Tensor, colour: Tensor | float) -> Tensor:
    """Composite over a colour in [0, 1] that broadcasts to [n, 3, h, w]: [n, 3, h, w]."""
    return pictures[:, :3] * pictures[:, 3:] + (1 - pictures[:, 3:]) * colour


def expected_composite(
    decoded: Tensor, truth: Tensor, mean: float | Sequence[float] = MEAN_B, square: float | Sequence[float] = SQUARE_B
) -> Tensor:
    """Squared error of the composite, expected over random backgrounds, in closed form (AlphaVAE, Wang et al. 2025).

    With d the difference of premultiplied colours, e that of alphas, and b a channel of the background, the composites
    differ by d - b e. The expectation of its square is d^2 - 2 E[b] d e + E[b^2] e^2.

    Args:
        decoded, truth: pictures.
        mean, square: E[b] and E[b^2] of a background in [0, 1], one number or one per channel.

    Returns:
        Sum over the three channels, mean over pixels. Never negative where E[b^2] >= E[b]^2, as for any real b.
    """
    first, second = (
        torch.as_tensor(value, dtype=truth.dtype, device=truth.device).view(-1, 1, 1) for value in (mean, square)
    )
    d = decoded[:, :3] * decoded[:, 3:] - truth[:, :3] * truth[:, 3:]
    e = decoded[:, 3:] - truth[:, 3:]
    # The same sum as two squares, so that rounding cannot make it negative.
    return ((d - first * e).square() + (second - first.square()) * e.square()).sum(1).mean()


def robust(error: Tensor) -> Tensor:
    """L1 plus twice the square: sharp near zero, firm far away. Mean over everything."""
    return error.abs().mean() + 2 * error.square().mean()


def composite_l1(decoded: Tensor, truth: Tensor, colour: Tensor) -> Tensor:
    """`robust` error of the composites over black, white and `colour` [n, 3, 1, 1], and of alpha."""
    errors = [over_colour(decoded, c) - over_colour(truth, c) for c in (0.0, 1.0, colour)]
    return sum(map(robust, errors)) / 3 + robust(decoded[:, 3:] - truth[:, 3:])


def chroma(decoded: Tensor, truth: Tensor, colour: Tensor) -> Tensor:
    """L1 of the composites' difference without its grey part: small VAEs learn brightness first, and colour late."""
    error = over_colour(decoded, colour) - over_colour(truth, colour)
    return (error - error.mean(1, keepdim=True)).abs().mean()


def kl(posterior) -> Tensor:
    """KL to N(0, 1), mean per latent value (diffusers' own sums over four axes; these posteriors have five)."""
    return 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()


def reference_kl(posterior, reference) -> Tensor:
    """KL of a posterior to another one, mean per latent value: opaque pictures keep the latents of the RGB VAE."""
    distance = (posterior.mean - reference.mean).square()
    ratio = (posterior.var + distance) / reference.var
    return 0.5 * (ratio - 1 + reference.logvar - posterior.logvar).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises, from its scores of true and decoded pictures (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_decoder(fake: Tensor) -> Tensor:
    """What the decoder minimises, from the critic's scores of its pictures."""
    return -fake.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Weight that brings the adversarial gradient at the decoder's last layer to the size of the reconstruction's.

    The ratio of the two norms, in [0, 1e4], without a gradient of its own (Esser et al. 2021, equation 7).
    """
    by_picture, by_critic = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )
    return (by_picture / (by_critic + 1e-4)).clamp(0, MOST).detach()
