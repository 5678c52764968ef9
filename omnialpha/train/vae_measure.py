"""How well a VAE keeps pictures: colour and alpha apart (experiment 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..data.examples import read_rgba, to_layer
from ..data.records import Triplet
from ..errors import OmniAlphaError
from ..resizing import resize
from .vae_losses import over_colour

BATCH = 8


@torch.no_grad()
def measure_vae(vae, records: Sequence[Triplet], size: tuple[int, int], limit: int = 256) -> dict[str, float]:
    """Round trips through the posterior mean.

    Args:
        vae: an RGBA VAE, or an RGB one (whose answer counts as opaque).
        records: triplets; foregrounds and composites are measured.
        size: (h, w) to work at.
        limit: records at most.

    Returns:
        For foregrounds: `foreground_psnr` over white in dB, mean over pictures, of colour where the truth is visible
        (`foreground_rgb_psnr`: true alpha on both sides), and alpha's mean squared (`alpha_mse`) and absolute
        (`alpha_mae`) error. For composites: `composite_psnr`, and `opaque_alpha_mae`.

    Raises:
        OmniAlphaError: no triplets.
    """
    from .vae import round_trip

    chosen = [record for record in records if isinstance(record, Triplet)][:limit]
    if not chosen:
        raise OmniAlphaError("There is no triplet to measure the VAE on.")
    training, device = vae.training, next(vae.parameters()).device
    vae.eval()
    result = {}
    for role in ("foreground", "composite"):
        paths = [record.pictures[role] for record in chosen if role in record.pictures]
        if not paths:
            continue
        truth = torch.stack([resize(to_layer(read_rgba(path)), size) for path in paths]).clamp(0, 1)
        decoded = torch.cat([round_trip(vae, part.to(device))[0].clamp(0, 1).cpu() for part in truth.split(BATCH)])
        alpha = decoded[:, 3] - truth[:, 3]
        if role == "foreground":
            # Colour alone: both sides get the true alpha.
            coloured = torch.cat([decoded[:, :3], truth[:, 3:]], 1)
            result["foreground_psnr"] = _psnr(decoded, truth)
            result["foreground_rgb_psnr"] = _psnr(coloured, truth)
            result["alpha_mse"], result["alpha_mae"] = float(alpha.pow(2).mean()), float(alpha.abs().mean())
        else:
            result["composite_psnr"], result["opaque_alpha_mae"] = _psnr(decoded, truth), float(alpha.abs().mean())
    vae.train(training)
    return result


def _psnr(decoded: torch.Tensor, truth: torch.Tensor) -> float:
    error = (over_colour(decoded, 1.0) - over_colour(truth, 1.0)).pow(2).mean((1, 2, 3)).clamp(min=1e-10)
    return float((-10 * error.log10()).mean())


def measure_file(path: Path | str, data: Path | str, size: tuple[int, int], limit: int = 256) -> dict[str, float]:
    """`measure_vae` for a VAE on disk (RGB ones are initialised opaquely) and a data set folder."""
    from ..data.records import read_records
    from ..vae import load_vae, single_frame

    vae = single_frame(load_vae(path, opaque_init=True))
    return measure_vae(vae, read_records(data).records, size, limit)
