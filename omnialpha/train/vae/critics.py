"""Networks that judge a VAE's pictures: a patch discriminator that learns along, and LPIPS on VGG16, which is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoint.weights import load_tensors
from ...errors import OmniAlphaError
from .losses import over_colour

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)  # Simonyan & Zisserman 2015
LOOKS = (3, 8, 15, 22, 29)  # the activations that LPIPS compares (Zhang et al. 2018)
CHANNELS = (64, 128, 256, 512, 512)  # and how many channels each has
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of what VGG16 was trained on


class PatchDiscriminator(nn.Sequential):
    """Scores each patch of a picture as real or decoded (Isola et al. 2017), from a composite and alpha.

    Args:
        width: channels of the first layer, a multiple of 8.
        layers: each but the last halves the picture once more; 3 see patches of 70 pixels, 2 of 34.
    """

    def __init__(self, width: int = 64, layers: int = 3):
        parts: list[nn.Module] = [nn.Conv2d(4, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        after = width
        for index in range(1, layers + 1):
            before, after = after, width * min(2**index, 8)
            # Statistics of a batch would differ between processes; those of groups of channels do not.
            parts += [
                nn.Conv2d(before, after, 4, 2 if index < layers else 1, 1, bias=False),
                nn.GroupNorm(8, after),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*parts, nn.Conv2d(after, 1, 4, 1, 1))

    def score(self, pictures: Tensor, colour: Tensor) -> Tensor:
        """Scores [n, 1, a, b], high for real, of pictures [n, 4, h, w] over `colour` [n, 3, 1, 1]."""
        return self(torch.cat([over_colour(pictures, colour), pictures[:, 3:]], 1) * 2 - 1).float()


class ObjectReader(nn.Module):
    """Reads an object's alpha off latents: one linear map from each latent pixel to the 8x8 pixels it stands for.

    It is as simple as can be, so that what it can read lies open for the transformer, whose tokens are such pixels.
    Used while training only.
    """

    def __init__(self, channels: int = 16, side: int = 8):
        super().__init__()
        self.side, self.map = side, nn.Conv2d(channels, side * side, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """[n, 16, 1, h, w] -> alpha [n, 8h, 8w], not clamped, float32."""
        return F.pixel_shuffle(self.map(latents[:, :, 0]).float(), self.side)[:, 0]


class Perceptual(nn.Module):
    """LPIPS: the distance of two pictures in VGG16's features (Zhang et al. 2018). The weights are a local file.

    Args:
        path: safetensors with `features.<n>.weight` and `.bias` as torchvision names VGG16's, and with LPIPS' own
            `lin<k>.weight` [1, C, 1, 1], or `lin<k>.model.1.weight` as the lpips package names them. Without any of
            those every channel counts the same.

    Raises:
        OmniAlphaError: unreadable, or weights of something else.
    """

    mean: Tensor
    std: Tensor

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
        found = {name.rpartition("features.")[2]: value for name, value in tensors.items() if "features." in name}
        wrong = [name for name, value in wanted.items() if name not in found or found[name].shape != value.shape]
        if wrong:
            raise OmniAlphaError(
                f"{path} is not VGG16's features: {len(wrong)} of {len(wanted)} tensors are missing or have another "
                f"shape, such as features.{wrong[0]}. Save torchvision's vgg16().features as safetensors, or leave "
                "`perceptual` out."
            )
        self.features.load_state_dict({name: found[name].float() for name in wanted})
        for index, scale in enumerate(_scales(tensors, path)):
            self.register_buffer(f"lin{index}", scale)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, decoded: Tensor, truth: Tensor, colours: Sequence[Tensor | float]) -> Tensor:
        """Mean distance of the composites over each of `colours`."""
        return torch.stack([self._distance(over_colour(decoded, c), over_colour(truth, c)) for c in colours]).mean()

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        a, b, total = (a - self.mean) / self.std, (b - self.mean) / self.std, a.new_zeros(())
        for index, layer in enumerate(self.features):
            a, b = layer(a), layer(b)
            if index in LOOKS:
                error = (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square()
                total = total + (error * getattr(self, f"lin{LOOKS.index(index)}")).sum(1).mean()
        return total


def _scales(tensors: dict[str, Tensor], path: Path | str) -> list[Tensor]:
    """LPIPS' weight of each channel, [1, C, 1, 1] per look; ones where the file has none at all."""
    named = [tensors.get(f"lin{k}.weight", tensors.get(f"lin{k}.model.1.weight")) for k in range(len(LOOKS))]
    if all(value is None for value in named):
        return [torch.ones(1, count, 1, 1) for count in CHANNELS]
    for k, (value, count) in enumerate(zip(named, CHANNELS)):
        if value is None or tuple(value.shape) != (1, count, 1, 1):
            found = "none" if value is None else list(value.shape)
            raise OmniAlphaError(f"{path}: expected lin{k}.weight of shape [1, {count}, 1, 1], found {found}.")
    return [value.float() for value in named if value is not None]
