"""How well a VAE keeps pictures, colour and alpha apart: `train measure-vae`, and experiment 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...data.examples import read_rgba, to_layer
from ...data.records import Record, Triplet, read_records
from ...errors import OmniAlphaError
from ...metrics import NINE
from .losses import over_colour
from .pictures import cover
from .terms import round_trip

BATCH = 8


def measurable(records: Sequence[Record], where: Path | str | None) -> list[Triplet]:
    """The triplets among records. OmniAlphaError where there are none."""
    chosen = [record for record in records if isinstance(record, Triplet)]
    if not chosen:
        raise OmniAlphaError(f"{where} has no triplet to measure a VAE on (in its test split, unless told otherwise).")
    return chosen


@torch.no_grad()
def measure_vae(
    vae: nn.Module, records: Sequence[Triplet], size: tuple[int, int], limit: int = 256
) -> dict[str, float]:
    """Round trips through the posterior's mean; results are clamped to [0, 1].

    Args:
        vae: an RGBA VAE, or an RGB one: its answer counts as opaque.
        records: triplets; foregrounds and composites are measured.
        size: (h, w) in pixels; pictures are scaled to cover it and cropped in the middle.
        limit: records at most.

    Returns:
        Means over pictures; PSNR in dB. Of foregrounds:
        `colour_psnr`, `colour_l1`: colour alone, both sides premultiplied with the true alpha;
        `premultiplied_psnr`, `premultiplied_l1`: each premultiplied with its own alpha, that is over black;
        `white_psnr`: over white;
        `nine_psnr`, `nine_l1`: over nine solid colours, mean of the nine;
        `alpha_mse`, `alpha_mae`: alpha alone.
        Of composites, which are opaque: `opaque_psnr`, `opaque_l1` (over black) and `opaque_alpha_mae`.
    """
    chosen = records[:limit]
    training, device = vae.training, next(vae.parameters()).device
    vae.eval()
    found: dict[str, list[Tensor]] = defaultdict(list)
    for role, compare in (("foreground", _compare_foregrounds), ("composite", _compare_composites)):
        paths = [record.pictures[role] for record in chosen if role in record.pictures]
        for start in range(0, len(paths), BATCH):
            truth = torch.stack([cover(to_layer(read_rgba(path)), size) for path in paths[start : start + BATCH]])
            decoded = round_trip(vae, truth.to(device))[0].clamp(0, 1).cpu()
            for name, values in compare(decoded, truth).items():
                found[name].append(values)
    vae.train(training)
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


def measure_file(
    path: Path | str, data: Path | str, sizes: Sequence[tuple[int, int]], split: str | None = "test", limit: int = 256
) -> dict[str, dict[str, float]]:
    """`measure_vae` of a VAE on disk, RGB (as opaque initialisation makes it) or RGBA, on a data set: size -> results.

    Raises:
        OmniAlphaError: the VAE or the data cannot be read, or a side is not a multiple of 8.
    """
    from ...model.vae import load_vae

    for size in sizes:
        if any(side < 8 or side % 8 for side in size):
            raise OmniAlphaError(f"A VAE cannot be measured at {size[0]}x{size[1]} pixels: sides are multiples of 8.")
    records = measurable(read_records(data).of_split(split), data)
    vae = load_vae(path, opaque_init=True)
    return {f"{height}x{width}": measure_vae(vae, records, (height, width), limit) for height, width in sizes}


def _compare_foregrounds(decoded: Tensor, truth: Tensor) -> dict[str, Tensor]:
    error = decoded[:, 3:] - truth[:, 3:]
    colour = truth[:, 3:] * (decoded[:, :3] - truth[:, :3])
    nine = torch.stack([over_colour(decoded, c) - over_colour(truth, c) for c in NINE.view(9, 3, 1, 1)])
    black, white = nine[0], nine[1]
    return {
        "colour_psnr": _psnr(colour),
        "colour_l1": _mean(colour.abs()),
        "premultiplied_psnr": _psnr(black),
        "premultiplied_l1": _mean(black.abs()),
        "white_psnr": _psnr(white),
        "nine_psnr": torch.stack([_psnr(item) for item in nine]).mean(0),
        "nine_l1": torch.stack([_mean(item.abs()) for item in nine]).mean(0),
        "alpha_mse": _mean(error.square()),
        "alpha_mae": _mean(error.abs()),
    }


def _compare_composites(decoded: Tensor, truth: Tensor) -> dict[str, Tensor]:
    error = over_colour(decoded, 0.0) - over_colour(truth, 0.0)
    alpha = (decoded[:, 3:] - truth[:, 3:]).abs()
    return {"opaque_psnr": _psnr(error), "opaque_l1": _mean(error.abs()), "opaque_alpha_mae": _mean(alpha)}


def _mean(values: Tensor) -> Tensor:
    """[n, c, h, w] -> [n]."""
    return values.mean((1, 2, 3))


def _psnr(error: Tensor) -> Tensor:
    """Of each picture's error [n, 3, h, w], in dB; 100 at most, where nothing differs."""
    return -10 * _mean(error.square()).clamp(min=1e-10).log10()
