"""Losses of the RGBA VAE, each a small pure function. Pictures are [n, 4, h, w], straight alpha in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import load_tensors
from ..errors import OmniAlphaError

# First and second moment of a background channel: uniform in [0, 1].
MEAN_B, MEAN_B2 = 1 / 2, 1 / 3
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)  # Simonyan & Zisserman 2015
LOOKS = (3, 8, 15, 22, 29)  # activations that LPIPS compares (Zhang et al. 2018)


def over_colour(pictures: torch.Tensor, colour: torch.Tensor | float) -> torch.Tensor:
    """Composite over a colour, [n, 3, h, w]."""
    return pictures[:, :3] * pictures[:, 3:] + (1 - pictures[:, 3:]) * colour


def expected_composite(
    decoded: torch.Tensor, truth: torch.Tensor, mean: float = MEAN_B, square: float = MEAN_B2
) -> torch.Tensor:
    """Mean squared error of the composite, expected over random backgrounds, in closed form.

    With d the difference of premultiplied colours, e that of alphas, and b a random background channel, the composites
    differ by d - b e; so the expectation is d^2 - 2 E[b] d e + E[b^2] e^2 (Wang et al., AlphaVAE, 2025). Mean over
    channels and pixels.

    Args:
        decoded, truth: pictures.
        mean, square: E[b] and E[b^2] of a background channel in [0, 1].
    """
    d = decoded[:, :3] * decoded[:, 3:] - truth[:, :3] * truth[:, 3:]
    e = decoded[:, 3:] - truth[:, 3:]
    return (d.pow(2) - 2 * mean * d * e + square * e.pow(2)).mean()


def robust(error: torch.Tensor) -> torch.Tensor:
    """L1 plus twice the square: sharp near zero, firm far away."""
    return error.abs().mean() + 2 * error.pow(2).mean()


def composite_l1(decoded: torch.Tensor, truth: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """`robust` error of the composites over black, white and `colour` [n, 3, 1, 1], and of alpha."""
    errors = [over_colour(decoded, c) - over_colour(truth, c) for c in (0.0, 1.0, colour)]
    return sum(map(robust, errors)) / 3 + robust(decoded[:, 3:] - truth[:, 3:])


def chroma(decoded: torch.Tensor, truth: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """L1 of the composites' difference without its grey part: small VAEs learn brightness first, and colour late."""
    error = over_colour(decoded, colour) - over_colour(truth, colour)
    return (error - error.mean(1, keepdim=True)).abs().mean()


def kl(posterior) -> torch.Tensor:
    """KL to N(0, 1), mean per latent value (diffusers' own sums over four axes; these posteriors have five)."""
    return 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()


def reference_kl(posterior, reference) -> torch.Tensor:
    """KL of a posterior to another one, mean per latent value: opaque pictures keep the latents of the RGB VAE."""
    distance = (posterior.mean - reference.mean).pow(2)
    ratio = (posterior.var + distance) / reference.var
    return 0.5 * (ratio - 1 + reference.logvar - posterior.logvar).mean()


def hinge_discriminator(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """What the discriminator minimises, from its scores (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(
    reconstruction: torch.Tensor, adversarial: torch.Tensor, last_layer: torch.Tensor, most: float = 1e4
) -> torch.Tensor:
    """Balance of the two losses by their gradients at the decoder's last layer (Esser et al. 2021, equation 7)."""
    by_picture = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0].norm()
    by_critic = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
    return (by_picture / (by_critic + 1e-4)).clamp(0, most).detach()


class PatchDiscriminator(nn.Sequential):
    """Scores patches of a picture as real or decoded (Isola et al. 2017), on alpha and the composite over a colour.

    Args:
        width: channels of the first layer.
        layers: how often the picture is halved.
    """

    def __init__(self, width: int = 64, layers: int = 3):
        parts: list[nn.Module] = [nn.Conv2d(4, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for index in range(1, layers + 1):
            before, after = width * min(2 ** (index - 1), 8), width * min(2**index, 8)
            stride = 2 if index < layers else 1
            # Batch statistics would differ between processes; group statistics do not.
            parts += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        super().__init__(*parts, nn.Conv2d(after, 1, 4, 1, 1))

    def score(self, pictures: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """Scores [n, 1, a, b] of pictures over `colour` [n, 3, 1, 1]."""
        return self(torch.cat([over_colour(pictures, colour), pictures[:, 3:]], 1) * 2 - 1)


class Perceptual(nn.Module):
    """LPIPS on VGG16, from a local safetensors file (Zhang et al. 2018).

    Args:
        path: `features.<n>.weight` and `.bias` of torchvision's VGG16, and `lin<k>.weight` [1, C, 1, 1] of LPIPS where
            there are any; without them every channel counts the same.

    Raises:
        OmniAlphaError: unreadable, or weights of something else.
    """

    def __init__(self, path: Path | str):
        super().__init__()
        tensors = load_tensors(path)
        layers: list[nn.Module] = []
        channels = 3
        for width in VGG16:
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        wanted = self.features.state_dict()
        found = {name.removeprefix("features."): value for name, value in tensors.items() if "features." in name}
        wrong = [name for name, value in wanted.items() if name not in found or found[name].shape != value.shape]
        if wrong:
            raise OmniAlphaError(
                f"{path} is not VGG16's features: {len(wrong)} of {len(wanted)} tensors are missing or have another "
                f"shape, such as features.{wrong[0]}. Save torchvision's vgg16().features as safetensors."
            )
        self.features.load_state_dict({name: found[name].float() for name in wanted})
        self.scales = [tensors.get(f"lin{k}.weight") for k in range(len(LOOKS))]
        self.requires_grad_(False)
        self.register_buffer("shift", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, decoded: torch.Tensor, truth: torch.Tensor, colours: Sequence) -> torch.Tensor:
        """Mean distance of the composites over each of `colours`."""
        return torch.stack([self._distance(over_colour(decoded, c), over_colour(truth, c)) for c in colours]).mean()

    def _distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b, total = (a - self.shift) / self.scale, (b - self.shift) / self.scale, 0.0
        for index, layer in enumerate(self.features):
            a, b = layer(a), layer(b)
            if index in LOOKS:
                error = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).pow(2)
                scale = self.scales[LOOKS.index(index)]
                total = total + (error.sum(1) if scale is None else (error * scale.to(error)).sum(1)).mean()
        return total
