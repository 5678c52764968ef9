"""The table of what training a VAE minimises: the configuration gives each term a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import losses
from .critics import PatchDiscriminator

ADVERSARIAL = "adversarial"  # the one term that needs the others' sum


@dataclass
class Step:
    """What the terms may look at: the pictures, what came of them, and who judges.

    Attributes:
        truth: [n, 4, h, w], straight alpha in [0, 1].
        decoded: the same after the round trip, not clamped.
        posterior: of the latents, float32.
        colour: [n, 3, 1, 1], a random colour for each picture.
        objects: alpha [N, h, w] of the object in each of the N >= n pictures that were encoded; NaN where nobody says.
        latents: of all N pictures, sampled, [N, 16, 1, h/8, w/8].
        reader: `critics.ObjectReader`; None without the term `objects`.
        background: E[b] and E[b^2] of `losses.expected_composite`, per channel.
        reference: a frozen VAE that encodes as the RGB one; None without.
        perceptual: `Perceptual`; None without weights.
    """

    truth: Tensor
    decoded: Tensor
    posterior: Any
    colour: Tensor
    objects: Any = None
    latents: Any = None
    reader: Any = None
    background: tuple = (losses.MEAN_B, losses.SQUARE_B)
    reference: Any = None
    perceptual: Any = None


def _reference_kl(step: Step) -> Tensor:
    """Only opaque pictures mean something to the RGB VAE."""
    opaque = (step.truth[:, 3] == 1).flatten(1).all(1)
    if not opaque.any():
        return step.truth.new_zeros(())
    with torch.no_grad():
        wanted = encode(step.reference, step.truth[opaque])
    return losses.reference_kl(type(step.posterior)(step.posterior.parameters[: len(opaque)][opaque]), wanted)


def _objects(step: Step) -> Tensor:
    """Squared error of the alpha that the latents alone give away."""
    known = ~step.objects.isnan().flatten(1).any(1)
    if not known.any():
        return step.latents.new_zeros(())
    return (step.reader(step.latents[known]) - step.objects[known]).square().mean()


TERMS: dict[str, Callable[[Step], Tensor]] = {
    "expected_composite": lambda step: losses.expected_composite(step.decoded, step.truth, *step.background),
    "composite_l1": lambda step: losses.composite_l1(step.decoded, step.truth, step.colour),
    "chroma": lambda step: losses.chroma(step.decoded, step.truth, step.colour),
    "perceptual": lambda step: step.perceptual(step.decoded, step.truth, (step.colour, 1 - step.colour)),
    "kl": lambda step: losses.kl(step.posterior),
    "reference_kl": _reference_kl,
    "objects": _objects,
}
PICTURE_TERMS = ("expected_composite", "composite_l1")  # those that alone tell what a picture has to be


def weighted_sum(step: Step, weights: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
    """All terms but the adversarial one: (their weighted sum, each without its weight as a number)."""
    values = {name: TERMS[name](step) for name, weight in weights.items() if weight and name in TERMS}
    total = sum((weights[name] * value for name, value in values.items()), step.decoded.new_zeros(()))
    return total, {name: float(value.detach()) for name, value in values.items()}


def adversarial(critic: PatchDiscriminator, step: Step, reconstruction: Tensor, last_layer: Tensor) -> Tensor:
    """The decoder's part of the hinge loss, at the size of the reconstruction's gradient; the critic gets none."""
    critic.requires_grad_(False)
    term = losses.hinge_decoder(critic.score(step.decoded, step.colour))
    critic.requires_grad_(True)
    return losses.adaptive_weight(reconstruction, term, last_layer) * term


def discrimination(critic: PatchDiscriminator, step: Step) -> Tensor:
    """The critic's own loss; the decoder gets no gradient from it."""
    real = critic.score(step.truth, step.colour)
    return losses.hinge_discriminator(real, critic.score(step.decoded.detach(), step.colour))


def encode(vae: Any, pictures: Tensor):
    """The posterior of pictures [n, 4, h, w] in [0, 1], in float32 whatever the VAE computes in.

    A VAE for RGB sees their colours alone, just as an opaquely initialised one does.
    """
    shown = pictures[:, : vae.encoder.conv_in.weight.shape[1]] * 2 - 1
    posterior = vae.encode(shown[:, :, None]).latent_dist
    return type(posterior)(posterior.parameters.float())


def decode(vae: Any, latent: Tensor) -> Tensor:
    """Pictures [n, 4, h, w] of raw latents [n, 16, 1, h/8, w/8], in float32 and not clamped.

    The VAE's own `decode` clamps, and no gradient comes back from what lies beyond: after an opaque start, from every
    alpha that was pushed above 1. A VAE for RGB answers with alpha 1.
    """
    decoded = (vae.decoder(vae.post_quant_conv(latent))[:, :, 0].float() + 1) / 2
    return decoded if decoded.shape[1] == 4 else torch.cat([decoded, torch.ones_like(decoded[:, :1])], 1)


def sample(posterior, generator: torch.Generator) -> Tensor:
    """Latents drawn from a posterior with noise from a generator of the CPU."""
    mean = posterior.mode()
    return mean + posterior.std * torch.randn(mean.shape, generator=generator).to(mean)


def round_trip(vae: nn.Module, pictures: Tensor):
    """(decoded, posterior), through the posterior's mean."""
    posterior = encode(vae, pictures)
    return decode(vae, posterior.mode()), posterior
